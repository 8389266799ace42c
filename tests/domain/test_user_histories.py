"""Random histories of a user: what was decided, what the log gives back and what a snapshot restores are one.

The bounds are small here, so that histories of this length meet them again and again.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from domain import users
from domain.errors import DomainError
from domain.events import Event, ReadMoved, SettingsUpdated, UserBlocked, UserUnblocked
from domain.own_settings import OwnSettings
from domain.users import TooSoon, User
from tests.domain.given import START, stored_and_read
from tests.domain.given_user import ANN, UserStory, folded_user

STEP = timedelta(milliseconds=400)
BOUNDS = {"MARKERS_MAX": 3, "DEVICES_MAX": 2, "REVOKED_MAX": 2, "BLOCKS_MAX": 2, "OWN_SETTINGS_MAX": 2}

conversation = st.integers(1, 5)
device = st.sampled_from(["phone", "desk", "pad", "bot"])
moment = st.none() | st.integers(0, 60).map(lambda seconds: START + timedelta(seconds=seconds))
command = st.one_of(
    st.tuples(
        st.just("profile"),
        st.fixed_dictionaries(
            {},
            optional={
                "display_name": st.sampled_from([None, "Ann", "An\nn"]),
                "avatar_url": st.sampled_from([None, "https://a.example/1"]),
                "attributes": st.dictionaries(st.sampled_from(["a", "b", "c d"]), st.just("🌊"), max_size=2),
            },
        ),
    ),
    st.tuples(st.just("register"), device, st.sampled_from(["mobile", "web", "fridge"]), moment),
    st.tuples(st.just("revoke"), device),
    st.tuples(st.just("read"), conversation, st.integers(-1, 30)),
    st.tuples(
        st.just("settle"),
        conversation,
        st.fixed_dictionaries(
            {},
            optional={
                "muted_until": st.sampled_from([None, datetime(2027, 1, 1, tzinfo=UTC)]),
                "pinned": st.booleans(),
                "hidden": st.booleans(),
            },
        ),
    ),
    st.tuples(st.just("block"), st.sampled_from(["bob", "eve", "mia", ANN])),
    st.tuples(st.just("unblock"), st.sampled_from(["bob", "eve", "mia"])),
)
commands = st.lists(command, max_size=40)


@pytest.fixture(autouse=True, scope="module")
def _small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, bound in BOUNDS.items():
            patch.setattr(users, name, bound)
        yield


def lived(story: UserStory, asked: list[tuple[Any, ...]]) -> list[Event]:
    """What a user decides of these commands; a refusal leaves no event."""
    decided = story.take()
    for name, *arguments in asked:
        try:
            match name, arguments:
                case ("profile", [changes]):
                    story.profile(**changes)
                case ("settle", [conversation_id, changes]):
                    story.settle(conversation_id, **changes)
                case ("register", [device_id, kind, token_issued_at]):
                    story.register(device_id, kind, token_issued_at=token_issued_at)
                case _:
                    getattr(story, name)(*arguments)
        except (DomainError, TooSoon):
            assert story.take() == []
        decided += story.take()
    return decided


def new_story() -> UserStory:
    return UserStory(User.create(ANN, now=START), step=STEP)


@given(commands)
def test_folding_what_was_stored_gives_the_state_that_decided_it(asked: list[tuple[Any, ...]]) -> None:
    story = new_story()
    events = lived(story, asked)
    read = [stored_and_read(event) for event in events]
    assert read == events
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    assert folded_user(read).state() == story.user.state()


@given(commands, commands)
def test_a_restored_user_goes_on_as_the_original(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> None:
    original = new_story()
    lived(original, before)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(original.user.state()))  # as in a snapshot
    restored = UserStory(User.restore(packed), step=STEP)
    assert restored.user.state() == original.user.state()
    restored.wait((original.now - restored.now).total_seconds())
    assert lived(restored, after) == lived(original, after)
    assert restored.user.state() == original.user.state()


@given(commands)
def test_a_marker_rises_and_is_stored_once_a_second(asked: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "MARKERS_MAX", 5)  # a forgotten one may start again
        events = lived(new_story(), asked)
    for conversation_id in range(1, 6):
        moves = [event for event in events if isinstance(event, ReadMoved) and event.conversation_id == conversation_id]
        for earlier, later in pairwise(moves):
            assert later.seq > earlier.seq
            assert later.timestamp - earlier.timestamp >= users.MARKER_INTERVAL


@given(commands)
def test_no_event_says_what_was_so_before(asked: list[tuple[Any, ...]]) -> None:
    own_settings: dict[int, OwnSettings] = {}
    blocked: set[str] = set()
    for event in lived(new_story(), asked):
        match event:
            case SettingsUpdated():
                after = OwnSettings(event.muted_until, event.pinned, event.hidden)
                assert after != own_settings.get(event.conversation_id, OwnSettings())
                own_settings[event.conversation_id] = after
            case UserBlocked():
                assert event.user_id not in blocked
                blocked.add(event.user_id)
            case UserUnblocked():
                blocked.remove(event.user_id)


@given(commands)
def test_nothing_grows_beyond_its_bound(asked: list[tuple[Any, ...]]) -> None:
    story = new_story()
    lived(story, asked)
    user = story.user
    devices = list(user.devices.values())
    assert len(user.markers) <= BOUNDS["MARKERS_MAX"]
    assert len(user.own_settings) <= BOUNDS["OWN_SETTINGS_MAX"]
    assert len(user.blocked) <= BOUNDS["BLOCKS_MAX"]
    assert sum(not device.revoked for device in devices) <= BOUNDS["DEVICES_MAX"]
    assert sum(device.revoked for device in devices) <= BOUNDS["REVOKED_MAX"]
    assert user.size_bytes >= User.create(ANN, now=START).size_bytes


def test_not_given_is_not_null() -> None:
    story = new_story()
    story.profile(display_name="Ann")
    assert story.profile(display_name=UNSET).display_name == "Ann"
    assert story.profile(display_name=None).display_name is None
