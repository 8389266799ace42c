"""The hot store on a real Valkey: equal to Postgres whatever happens to either, and never in the way."""

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound
from projections import hot as hot_module
from projections import hot_feed, hot_keys
from projections.asking import answer
from projections.hot import HotStore
from projections.hot_feed import HotFeed
from projections.inbox import InboxQueries
from projections.queries import Queries
from streams import subjects
from tests.projections.conftest import TABLES
from tests.projections.hot_stores import (
    feed_fixture,  # noqa: F401
    hot_fixture,  # noqa: F401
    in_force,
    inbox_fixture,  # noqa: F401
    models_fixture,  # noqa: F401
    own_keys,
    root,
    running,
    same,
    valkey_fixture,  # noqa: F401
    valkey_server_fixture,  # noqa: F401
)
from tests.projections.models import Models

WAIT_S = 20.0
CONV, USER = subjects.stream(subjects.CONV, 0), subjects.stream(subjects.USER, 0)


# -- what is read -------------------------------------------------------------------------------------------


async def test_what_is_missing_is_rebuilt_and_then_kept_current(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    tea = await models.create("ann", "bob", name="Tea")
    await models.create("ann", "cid", kind="direct")
    await models.post(tea, "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        assert (await same(hot, inbox, "ann")).conversations[0].unread == 1
        assert await own_keys(valkey) == {"ann"}
        await models.read("ann", tea, 1)
        await models.post(tea, "bob")
        await models.rename(tea, "Coffee")
        await models.set_own("ann", tea, pinned=True, muted_until=datetime.now(UTC) + timedelta(hours=1))
        jam = await models.create("bob", "ann", name="Jam")
        await models.add(await models.create("cid"), "ann")
        await in_force(valkey, models)
        found = await same(hot, inbox, "ann")
        assert len(found.conversations) == 4
        await models.remove(jam, "ann")
        await models.set_own("ann", tea, hidden=True)
        await in_force(valkey, models)
        assert len((await same(hot, inbox, "ann")).conversations) == 2
        assert len((await same(hot, inbox, "ann", hidden=True)).conversations) == 3


async def test_a_page_that_is_hot_asks_nothing_of_postgres(
    models: Models,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
    pool: AsyncConnectionPool,
) -> None:
    await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        expected = await hot.page("ann", limit=50)
        closed = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, open=False)
        await closed.open()
        assert await HotStore(valkey, InboxQueries(closed)).page("ann", limit=50) == expected
        await closed.close()


async def test_an_empty_inbox_is_known_to_be_empty(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        assert (await same(hot, inbox, "ann")).conversations == []
        assert await own_keys(valkey) == {"ann"}
        await models.create("bob", "ann")
        await in_force(valkey, models)
        assert len((await same(hot, inbox, "ann")).conversations) == 1


async def test_missing_heads_and_ranks_are_rebuilt_alone(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    made = [await models.create("ann", "bob") for _ in range(3)]
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await hot.page("ann", limit=50)
        keys = await root(valkey)
        await valkey.delete(f"{keys}rank:{made[0]}", f"{keys}head:{made[1]}")
        await same(hot, inbox, "ann")
        assert await valkey.exists(f"{keys}rank:{made[0]}", f"{keys}head:{made[1]}") == 2


@pytest.mark.parametrize("step", [timedelta(0), timedelta(milliseconds=1)])
async def test_pages_neither_repeat_nor_leave_out(
    pool: AsyncConnectionPool,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
    step: timedelta,
) -> None:
    models = await Models(pool, step=step).open()
    made = [await models.create("ann", "bob") for _ in range(11)]
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        seen: list[int] = []
        page = None
        while not seen or page is not None:
            answer = await hot.page("ann", limit=3, page=page)
            assert answer == await inbox.page("ann", limit=3, page=page)
            seen += [int(entry.conversation_id) for entry in answer.conversations]
            page = answer.page
    assert seen == sorted(made, reverse=True)


# -- the newest messages ------------------------------------------------------------------------------------


async def pages(queries: Queries, id_: int, user: str, *, limit: int = 3) -> list[Any]:
    """What is read around all places of a short conversation."""
    found: list[Any] = []
    for before, after in ((None, None), (None, None), (2, None), (6, None), (None, 0), (None, 4)):
        try:
            page, _ = await queries.messages_page(id_, user, before=before, after=after, limit=limit)
            found.append(page)
        except NotFound:
            found.append("a stranger")
    return found


async def same_messages(pool: AsyncConnectionPool, hot: HotStore, id_: int, user: str) -> None:
    """The user's pages of messages, which are the same with the hot store and without."""
    assert await pages(Queries(pool, hot=hot), id_, user) == await pages(Queries(pool), id_, user)


@pytest.fixture
async def fed(models: Models, feed: HotFeed, valkey: redis.asyncio.Redis) -> AsyncIterator[Models]:
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        yield models


async def test_the_newest_messages_are_hot_once_somebody_has_looked_and_stay_current(
    fed: Models, hot: HotStore, pool: AsyncConnectionPool, valkey: redis.asyncio.Redis
) -> None:
    tea = await fed.create("ann", "bob")
    for _ in range(5):
        await fed.post(tea, "bob")
    await in_force(valkey, fed)
    queries = Queries(pool, hot=hot)

    async def tiers(user: str = "ann", **where: Any) -> tuple[str, ...]:
        where = {"before": None, "after": None, "limit": 3, **where}
        return (await queries.messages_page(tea, user, **where)).tiers

    assert await tiers() == ("warm",)
    assert await tiers() == ("hot",)
    await fed.post(tea, "ann")
    await fed.rename(tea, "Tea")
    await fed.post(tea, "bob")
    await in_force(valkey, fed)
    await same_messages(pool, hot, tea, "ann")
    assert await tiers(after=6) == await tiers(before=3) == await tiers(after=7) == ("hot",)
    assert await tiers(min_version=8) == ("hot",)
    assert await tiers("bob") == ("warm",)  # nothing is known of bob yet
    assert await tiers("bob") == ("hot",)
    await fed.remove(tea, "bob")
    await in_force(valkey, fed)
    with pytest.raises(NotFound):
        await tiers("bob")


async def test_a_tail_is_bounded(
    fed: Models, hot: HotStore, valkey: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tea = await fed.create("ann")
    await fed.post(tea, "ann")
    await in_force(valkey, fed)
    assert await hot.tail(tea, "ann", fill=True) is None
    for _ in range(hot_keys.TAIL_MAX + 5):
        await fed.post(tea, "ann")
    await in_force(valkey, fed)
    tail = await hot.tail(tea, "ann", fill=False)
    assert tail is not None
    seqs = range(7, hot_keys.TAIL_MAX + 7)
    assert [message.seq for message in tail.messages(seqs)] == list(seqs)
    assert (tail.first, tail.last) == (7, hot_keys.TAIL_MAX + 6)
    assert 0 < await valkey.ttl(f"{await root(valkey)}tail:{tea}") <= hot_keys.TAIL_TTL_S
    monkeypatch.setattr(hot_keys, "MESSAGE_MAX_BYTES", 10)
    await fed.post(tea, "ann")
    await in_force(valkey, fed)
    assert await hot.tail(tea, "ann", fill=True) is None
    assert await hot.tail(tea, "ann", fill=True) is None  # one of them is too long


async def test_more_than_one_script_takes_is_not_filled_in_between(
    fed: Models,
    feed: HotFeed,
    hot: HotStore,
    valkey: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
    pool: AsyncConnectionPool,
) -> None:
    """What an earlier script has passed over is not put there as it was before."""
    tea = await fed.create("ann")
    for _ in range(3):
        await fed.post(tea, "ann")
    await in_force(valkey, fed)
    await hot.page("ann", limit=5)
    applied, old = await InboxQueries(pool).newest_messages(tea, hot_keys.TAIL_MAX)
    monkeypatch.setattr(hot_feed, "WRITE_MAX", 2)
    scripts = 0

    async def between(asked: Awaitable[Any], timeout_s: float) -> Any:
        nonlocal scripts
        written = await answer(asked, timeout_s)
        scripts += 1
        reading = hot_module._Reading(hot._epoch, applied)
        entries = [hot_keys.packed_message(message) for message in old]
        await hot._install(reading, applied, conversation_id=tea, tail=entries)
        return written

    monkeypatch.setattr(hot_feed, "answer", between)
    committed: list[tuple[Any, ...]] = []
    fed.on_commit = lambda *told: committed.append(told)
    for _ in range(5):
        await fed.post(tea, "ann")
    for told in committed:
        feed.feed(*told)
    await in_force(valkey, fed)
    assert scripts > 1
    await same_messages(pool, hot, tea, "ann")


# -- any history --------------------------------------------------------------------------------------------

USERS = ["ann", "bob", "cid"]
_user = st.sampled_from(USERS)
_number = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from([("ann", "bob"), ("bob", "cid"), ("cid", "ann", "bob")])),
        st.tuples(st.just("direct"), st.sampled_from([("ann", "bob"), ("bob", "cid")])),
        st.tuples(st.just("post"), _number, _user),
        st.tuples(st.just("toggle"), _number, _user),
        st.tuples(st.just("rename"), _number),
        st.tuples(st.just("read"), _number, _user),
        st.tuples(st.just("set"), _number, _user, st.booleans(), st.booleans()),
        st.tuples(st.just("look"), _user),
        st.tuples(st.just("flush")),
        st.tuples(st.just("evict"), _number),
    ),
    max_size=25,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(STEPS)
async def test_the_hot_page_is_that_of_postgres_after_any_history(
    valkey: redis.asyncio.Redis, pool: AsyncConnectionPool, steps: list[tuple[Any, ...]]
) -> None:
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}")
    await valkey.flushall()
    feed, inbox = HotFeed(valkey, pool, [CONV, USER]), InboxQueries(pool)
    hot = HotStore(valkey, inbox)
    models = await Models(pool, on_commit=feed.feed).open()
    async with running(feed):
        for step in steps:
            await _happens(models, valkey, hot, step)
        await in_force(valkey, models)
        for user in USERS:
            for hidden in (False, True):
                await same(hot, inbox, user, hidden=hidden)
                await same(hot, inbox, user, hidden=hidden)
            for id_ in models.places:
                await same_messages(pool, hot, id_, user)


async def _happens(models: Models, valkey: redis.asyncio.Redis, hot: HotStore, step: tuple[Any, ...]) -> None:
    made = list(models.places)
    match step:
        case ("create", members):
            await models.create(*members)
        case ("direct", members):
            await models.create(*members, kind="direct")
        case ("look", user):
            await hot.page(user, limit=2)
            for id_ in made:
                await hot.tail(id_, user, fill=True)
        case ("flush",):
            await valkey.flushall()
        case ("evict", number):
            keys = sorted([key async for key in valkey.scan_iter("riverrun:*:*")])
            if keys:
                await valkey.delete(keys[number * len(keys) // 6])
        case (what, number, *rest) if made:
            await _changes(models, made[number % len(made)], what, *rest)


async def _changes(models: Models, id_: int, what: str, *rest: Any) -> None:
    place = models.places[id_]
    match what, *rest:
        case "post", user if user in place.members:
            await models.post(id_, user)
        case "toggle", user if place.kind == "group":
            await (models.remove(id_, user) if user in place.members else models.add(id_, user))
        case ("rename",):
            await models.rename(id_, f"name {place.version}")
        case "read", user if place.last_seq:
            await models.read(user, id_, place.last_seq)
        case "set", user, pinned, hidden:
            await models.set_own(user, id_, pinned=pinned, hidden=hidden)
