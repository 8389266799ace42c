"""What a client had and the events it was given are what a fresh client pulls, wherever it was cut off."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.events import OF_CONVERSATIONS, OF_USERS
from tests.oracle.clients import SocketClient
from tests.oracle.story import CLIENTS, MIA, OLGA, Step, Story, step
from tests.running import Running

TYPES = [event.TOPIC for event in (*OF_CONVERSATIONS, *OF_USERS)]

GROUP: Step = ("group", OLGA, [MIA, "ben"], "group")

# For each type of event what comes before it, and the step that makes it.
SCENARIOS: dict[str, list[Step]] = {
    "conversation.created": [GROUP],
    "conversation.updated": [GROUP, ("rename", OLGA, 0, "Rapids")],
    "member.added": [("group", OLGA, ["ben"], "group"), ("burst", 0, 4), ("add", OLGA, 0, MIA)],
    "member.removed": [GROUP, ("post", "ben", 0), ("remove", OLGA, 0, MIA)],
    "member.updated": [GROUP, ("promote", OLGA, 0, MIA, "admin")],
    "message.posted": [GROUP, ("burst", 0, 3), ("post", MIA, 0), ("post", "ben", 0)],
    "read.moved": [GROUP, ("burst", 0, 8), ("read", 0, 1)],
    "settings.updated": [GROUP, ("own_settings", 0, "2999-09-09T09:09:09.000Z", True)],
    "profile.updated": [("profile", "Mia", "tea")],
    "device.registered": [("register", "phone")],
    "device.revoked": [("register", "phone"), ("revoke", "phone")],
    "user.blocked": [("direct", MIA, "ben"), ("block", "ben")],
    "user.unblocked": [("block", "ben"), ("unblock", "ben")],
}


few = partial(
    settings,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # each example takes a second: what fails is told, not shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def told(running: Running) -> AsyncIterator[Story]:
    """A story, to be checked at its end."""
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as http:
        story = await Story.begin(running, http)
        try:
            yield story
        except BaseException as error:
            error.add_note(f"after {story.done}")
            raise
        finally:
            await story.end()


def test_every_type_of_event_has_a_scenario() -> None:
    assert sorted(SCENARIOS) == sorted(TYPES)


@pytest.mark.parametrize("type_", TYPES)
async def test_an_event_of_every_type_is_told_to_who_is_connected(running: Running, type_: str) -> None:
    async with told(running) as story:
        await story.do(*SCENARIOS[type_])
        await story.check()
        for observed in story.clients:
            if observed.notified:
                assert await observed.until(lambda state=observed.state: type_ in state.types)  # type: ignore[misc]


@pytest.mark.parametrize("type_", TYPES)
async def test_an_event_of_every_type_is_told_to_who_was_cut_off(running: Running, type_: str) -> None:
    *before, last = SCENARIOS[type_]
    async with told(running) as story:
        await story.do(*before, *[("cut", client) for client in range(CLIENTS)], last)
        await story.check()
        resumed = [observed for observed in story.clients if type(observed) is SocketClient]
        assert all(type_ in observed.state.types for observed in resumed)


@few(max_examples=10)
@given(steps=st.lists(step, min_size=10, max_size=60))
async def test_what_was_had_and_what_was_given_are_what_is_pulled(running: Running, steps: list[Step]) -> None:
    async with told(running) as story:
        await story.do(GROUP, ("group", MIA, ["cid"], "channel"), ("direct", "ben", MIA), *steps)
        await story.check()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crossing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A Riverrun in which groups of three and four come and go across the limit of the fan-out."""
    riverrun = Running(Path(tmp_path_factory.mktemp("crossing")) / "data", RIVERRUN_FANOUT_LIMIT="2")
    await riverrun.start()
    try:
        yield riverrun
    finally:
        assert await riverrun.stop() == 0


@few(max_examples=4)
@given(steps=st.lists(step, min_size=10, max_size=60))
async def test_it_is_so_where_conversations_cross_the_limit_of_the_fanout(crossing: Running, steps: list[Step]) -> None:
    async with told(crossing) as story:
        await story.do(GROUP, ("group", MIA, [], "group"), ("add", MIA, 1, "cid"), ("remove", MIA, 1, "cid"), *steps)
        await story.check()


async def test_a_cursor_that_was_told_in_between_is_as_good(running: Running) -> None:
    """Cursors come every few seconds; by then the audit has moved the base of some."""
    async with told(running) as story:
        await story.do(GROUP, ("direct", MIA, "ben"), ("group", OLGA, [MIA], "group"))
        sockets = [observed for observed in story.clients if isinstance(observed, SocketClient)]
        for round_ in range(2):
            told_before = [observed.told for observed in sockets]
            await story.do(("burst", 0, 6))
            for observed, before in zip(sockets, told_before, strict=True):
                assert await observed.until(lambda client=observed, count=before: client.told > count)  # type: ignore[misc]
            await story.do(("burst", 1, 4), ("remove", OLGA, 2, MIA), ("post", OLGA, 2), ("read", 0, 0))
            await story.do(*[("cut", client) for client in range(CLIENTS) if client % 2 == round_])
            await story.do(("burst", 0, 4), ("add", OLGA, 2, MIA), ("profile", "Mia", f"tea {round_}"))
            await story.do(*[("resume", client) for client in range(CLIENTS)], ("pull", 1, 2, 1), ("burst", 2, 5))
        await story.check()
