"""The hot store when something is lost, late, or done by two at once: nothing wrong is ever shown."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import redis.asyncio
from psycopg_pool import AsyncConnectionPool

from projections import hot_feed, hot_keys
from projections.entries import Own
from projections.hot import HotStore
from projections.hot_feed import HotFeed
from projections.inbox import InboxQueries
from projections.pages import Positions
from runtime.embedded.valkey import ValkeyServer
from streams import subjects
from tests.projections.hot_stores import (
    client,
    eventually,
    feed_fixture,  # noqa: F401
    hot_fixture,  # noqa: F401
    in_force,
    inbox_fixture,  # noqa: F401
    models_fixture,  # noqa: F401
    own_keys,
    running,
    same,
    valkey_fixture,  # noqa: F401
    valkey_server_fixture,  # noqa: F401
)
from tests.projections.models import Models

WAIT_S = 20.0
CONV, USER = subjects.stream(subjects.CONV, 0), subjects.stream(subjects.USER, 0)


# -- races and losses ---------------------------------------------------------------------------------------


class SlowInbox(InboxQueries):
    """Between reading and answering, something happens."""

    meanwhile: Callable[[], Awaitable[None]]

    async def own(self, user_id: str) -> tuple[Positions, dict[int, Own]]:
        answer = await super().own(user_id)
        await self.meanwhile()
        return answer


async def test_an_update_between_reading_and_installing_is_not_lost(
    models: Models, pool: AsyncConnectionPool, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    tea = await models.create("ann", "bob")
    models.on_commit = feed.feed
    slow = SlowInbox(pool)

    async def meanwhile() -> None:
        await models.create("bob", "ann")
        await models.remove(tea, "ann")
        await in_force(valkey, models)

    slow.meanwhile = meanwhile
    async with running(feed):
        await in_force(valkey, models)
        before = await HotStore(valkey, slow).page("ann", limit=50)
        # As of before, and its cursor says so: sync brings the rest.
        assert [int(entry.conversation_id) for entry in before.conversations] == [tea]
        assert before.cursor.positions == (1,)
        assert await own_keys(valkey) == set()
        hot = HotStore(valkey, InboxQueries(pool))
        await same(hot, InboxQueries(pool), "ann")
        assert await own_keys(valkey) == {"ann"}
        await same(hot, InboxQueries(pool), "ann")


async def test_an_update_that_is_not_fed_yet_reaches_what_was_installed_meanwhile(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        held: list[tuple[Any, ...]] = []
        models.on_commit = lambda *commit: held.append(commit)
        await models.create("ann", "bob")
        # Postgres is ahead of the hot store here: what is installed has more than its cursor says.
        found = await hot.page("ann", limit=50)
        assert len(found.conversations) == 1
        assert found.cursor.positions == (0,)
        for commit in held:
            feed.feed(*commit)
        await in_force(valkey, models)
        await same(hot, inbox, "ann")


async def test_a_flushed_valkey_begins_anew_by_itself(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        await valkey.flushall()
        await same(hot, inbox, "ann")
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        assert await own_keys(valkey) == {"ann"}
        await valkey.flushall()
        await models.create("bob", "ann")
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
    assert feed.epochs_total == 3


async def test_a_stopped_valkey_delays_nothing_and_comes_back(
    models: Models,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
    valkey_server: ValkeyServer,
) -> None:
    await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await valkey_server.child.stop()
        try:
            await models.create("bob", "ann")
            await same(hot, inbox, "ann")
        finally:
            await valkey_server.child.start()
        await models.create("bob", "ann")
        async with client(valkey_server.url) as anew:  # the other's connections are those that the stop has ended
            await in_force(anew, models)
        assert len((await same(hot, inbox, "ann")).conversations) == 3


async def test_without_valkey_inboxes_come_from_postgres(models: Models, inbox: InboxQueries) -> None:
    await models.create("ann", "bob")
    nowhere = client("redis://127.0.0.1:1/0")
    assert len((await same(HotStore(nowhere, inbox), inbox, "ann")).conversations) == 1
    await nowhere.aclose()


async def test_a_valkey_that_does_not_answer_is_not_waited_for(models: Models, inbox: InboxQueries) -> None:
    await models.create("ann", "bob")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        valkey = client(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        async with asyncio.timeout(WAIT_S):
            await same(HotStore(valkey, inbox), inbox, "ann")
        await valkey.aclose()


async def test_of_two_feeders_of_a_stream_neither_trusts_what_the_other_wrote(
    models: Models,
    pool: AsyncConnectionPool,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
) -> None:
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await models.create("ann", "bob")
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        first = await valkey.get(hot_keys.EPOCH)
        other = HotFeed(valkey, pool, [CONV, USER])
        async with running(other):
            await eventually(lambda: _is_not(valkey, first))
            await same(hot, inbox, "ann")
        # The other is gone: this one has noticed, or does at its next look.
        await models.create("bob", "ann")
        await in_force(valkey, models)
        await same(hot, inbox, "ann")


async def _is_not(valkey: redis.asyncio.Redis, epoch: bytes | str | None) -> bool:
    return await valkey.get(hot_keys.EPOCH) != epoch


async def test_feeders_of_different_streams_share_an_epoch(
    models: Models, pool: AsyncConnectionPool, hot: HotStore, inbox: InboxQueries, valkey: redis.asyncio.Redis
) -> None:
    conversations, users = HotFeed(valkey, pool, [CONV]), HotFeed(valkey, pool, [USER])

    def feed_both(stream: str, batch: Sequence[Any], sequence: int) -> None:
        (conversations if stream == CONV else users).feed(stream, batch, sequence)

    models.on_commit = feed_both
    id_ = await models.create("ann", "bob")
    async with running(conversations):
        await eventually(lambda: _is_not(valkey, None))
        await same(hot, inbox, "ann")
        assert await own_keys(valkey) == set()  # the streams of users are not in it yet
        async with running(users):
            await in_force(valkey, models)
            await same(hot, inbox, "ann")
            await models.post(id_, "bob")
            await models.read("ann", id_, 1)
            await in_force(valkey, models)
            await same(hot, inbox, "ann")
            assert (conversations.epochs_total, users.epochs_total) == (1, 1)


async def test_more_than_is_kept_is_a_new_epoch(
    models: Models,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot_feed, "PENDING_MAX", 5)
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await models.create("ann", *(f"u{number}" for number in range(10)))
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
    assert feed.epochs_total == 2


async def test_a_commit_that_was_not_fed_is_a_new_epoch(
    models: Models, hot: HotStore, inbox: InboxQueries, feed: HotFeed, valkey: redis.asyncio.Redis
) -> None:
    id_ = await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        models.on_commit = None
        await models.rename(id_, "not fed")
        models.on_commit = feed.feed
        await models.create("bob", "cid")
        await in_force(valkey, models)
        assert (await same(hot, inbox, "ann")).conversations[0].name == "not fed"
    assert feed.epochs_total == 2


async def test_a_projection_that_is_ahead_of_the_others_says_no_more_than_all_have(
    models: Models,
    pool: AsyncConnectionPool,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
) -> None:
    """As a worker commits when an event cannot be applied: one projection after the other, event by event."""
    id_ = await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        held: list[tuple[Any, ...]] = []
        models.on_commit = lambda *commit: held.append(commit)
        await models.post(id_, "bob")
        await models.post(id_, "bob")
        async with pool.connection() as connection:
            await connection.execute("UPDATE checkpoints SET sequence = 1 WHERE projection = 'messages'")
        for stream, batch, _ in held:
            feed.feed(stream, batch, 1)
        await eventually(lambda: _shows_version(hot, 3))
        assert (await same(hot, inbox, "ann")).cursor.positions == (1,)
        async with pool.connection() as connection:
            await connection.execute("UPDATE checkpoints SET sequence = 3 WHERE projection = 'messages'")
        for commit in held:
            feed.feed(*commit)
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
    assert feed.epochs_total == 1


async def _shows_version(hot: HotStore, version: int) -> bool:
    return (await hot.page("ann", limit=1)).conversations[0].version == version


async def test_read_models_that_are_dropped_and_rebuilt_are_followed(
    models: Models,
    pool: AsyncConnectionPool,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
) -> None:
    for _ in range(3):
        await models.create("ann", "bob")
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        await same(hot, inbox, "ann")
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE checkpoints, conversations, members, heads, messages, changes")
        rebuilt = await Models(pool, on_commit=feed.feed).open()
        await rebuilt.create("ann", "bob", name="of another past")
        await in_force(valkey, rebuilt)
        assert len((await same(hot, inbox, "ann")).conversations) == 1


async def test_a_large_write_goes_in_parts(
    models: Models,
    hot: HotStore,
    inbox: InboxQueries,
    feed: HotFeed,
    valkey: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot_feed, "WRITE_MAX", 3)
    models.on_commit = feed.feed
    async with running(feed):
        await in_force(valkey, models)
        users = [f"u{number}" for number in range(10)]
        for user in users:
            await same(hot, inbox, user)
        for _ in range(5):
            await models.create("ann", *users)
        await in_force(valkey, models)
        for user in users:
            assert len((await same(hot, inbox, user)).conversations) == 5
