"""The hot store on a real Valkey: equal to Postgres whatever happens to either, and never in the way."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from projections.hot import HotStore
from projections.hot_feed import HotFeed
from projections.inbox import InboxQueries
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
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
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


async def _happens(models: Models, valkey: redis.asyncio.Redis, hot: HotStore, step: tuple[Any, ...]) -> None:
    made = list(models.places)
    match step:
        case ("create", members):
            await models.create(*members)
        case ("direct", members):
            await models.create(*members, kind="direct")
        case ("look", user):
            await hot.page(user, limit=2)
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
