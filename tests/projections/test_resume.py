"""What a session that resumes is given, and that clients who sync or resume end where a fresh one begins."""

import random
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from domain.errors import Unavailable
from projections.inbox import InboxQueries
from projections.pages import InboxEntry, StoredEvent, Synced
from projections.sync import SyncQueries
from streams.cursor import Cursor
from tests.projections.conftest import TABLES
from tests.projections.models import Models
from tests.projections.syncs import (
    inbox_fixture,  # noqa: F401
    opened,
    seen_by,
    since,
    sync_fixture,  # noqa: F401
    versions,
)

PARTITIONS = 2


# -- a session that resumes ---------------------------------------------------------------------------------


async def test_a_session_is_given_all_that_it_missed(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    tea, jam, ham = [await models.create("ann", "bob") for _ in range(3)]
    cursor = await seen_by(models, "ann")
    await models.post(jam, "bob")
    await models.post(tea, "bob")
    await models.read("ann", tea, 1)
    await models.post(jam, "bob")
    await models.remove(ham, "ann")
    await models.set_profile("ann", "Ann", mood="fine")
    await models.set_own("ann", tea, pinned=True)
    new = await models.create("bob", "ann")
    assert await sync.missed("ann", cursor, limit=7) is None
    missed = await sync.missed("ann", cursor, limit=8)
    assert missed is not None
    assert [(int(event.conversation_id), event.version) for event in missed.events] == [
        (jam, 2), (tea, 2), (jam, 3), (ham, 2), (new, 1),
    ]  # fmt: skip
    assert [event.type for event in missed.own] == ["read.moved", "profile.updated", "settings.updated"]
    assert {one.conversation_id: (one.version, one.member_count) for one in missed.memberships} == {
        tea: (2, 2), jam: (3, 2), new: (1, 2),
    }  # fmt: skip
    assert missed.cursor == models.positions.cursor("ann")


async def test_more_than_the_limit_is_not_recovered(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    tea, jam = await models.create("ann", "bob"), await models.create("ann", "bob")
    cursor = await seen_by(models, "ann")
    for _ in range(20):
        await models.post(tea, "bob")
        await models.post(jam, "bob")
    for limit, recovered in ((1, False), (19, False), (30, False), (39, False), (40, True)):
        missed = await sync.missed("ann", cursor, limit=limit)
        assert (missed is not None) is recovered
    assert missed is not None
    assert len(missed.events) == 40


async def test_what_a_session_saw_ahead_is_not_given_again(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    tea, jam = await models.create("ann", "bob"), await models.create("ann", "bob")
    base = await seen_by(models, "ann")
    for id_ in (tea, jam, tea):
        await models.post(id_, "bob")
    missed = await sync.missed("ann", Cursor(base.positions, base.own, {tea: 2, jam: 4}), limit=10)
    assert missed is not None
    assert [(int(event.conversation_id), event.version) for event in missed.events] == [(tea, 3)]
    assert missed.cursor.ahead == {jam: 4}


async def test_own_events_of_a_time_say_what_stands_now(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    await models.read("ann", id_, 1)
    until = datetime(2026, 5, 1, tzinfo=UTC)
    await models.set_own("ann", id_, muted_until=until, hidden=True)
    await models.read("ann", id_, 2)
    at = models.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    missed = await sync.missed("ann", Cursor((1,)), limit=10)
    assert missed is not None
    assert [msgspec.to_builtins(event) for event in missed.own][1] == {
        "type": "read.moved",
        "conversation_id": str(id_),
        "occurred_at": at,
        "actor_id": "ann",
        "data": {"seq": 2},
    }
    assert missed.own[0].data == {"muted_until": "2026-05-01T00:00:00.000Z", "pinned": False, "hidden": True}


async def test_without_postgres_there_is_no_sync() -> None:
    pool = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, open=False)
    await pool.open()
    with pytest.raises(Unavailable):
        await since(SyncQueries(pool), "ann", Cursor((0,)))
    await pool.close()


# -- the oracle: what a client had and was told is what a fresh one pulls -----------------------------------


class Client:
    """A client that pulls. It keeps the entries, and of each conversation the versions of the events it was given."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.cursor = Cursor((0,) * PARTITIONS)
        self.entries: dict[str, InboxEntry] = {}
        self.reached: dict[str, int] = {}

    def take(self, answer: Synced, models: Models) -> None:
        for entry in answer.conversations:
            fields = msgspec.structs.asdict(entry)
            self.entries[entry.conversation_id] = InboxEntry(**{f: fields[f] for f in InboxEntry.__struct_fields__})
            self._take_events(entry.conversation_id, entry.events, entry.events_truncated, models)
            assert self.reached[entry.conversation_id] == entry.version
        for left in answer.left:
            self.entries.pop(left.conversation_id, None)
            self._take_events(left.conversation_id, left.events, left.events_truncated, models)
            self.reached.pop(left.conversation_id, None)
        self.cursor = answer.cursor

    def _take_events(self, id_: str, events: list[StoredEvent], truncated: bool, models: Models) -> None:
        known = self.reached.get(id_)
        for event in events:
            if known is not None and not truncated and id_ in self.entries:
                assert event.version <= known + 1, "a hole"
            known = max(known or 0, event.version)
            public = next(public for _, public in models.places[int(id_)].events if public.version == event.version)
            assert msgspec.json.encode(event) == msgspec.json.encode(public)
        if known is not None:
            self.reached[id_] = known


USERS = ["ann", "bob", "cid"]


async def _happens(models: Models, chance: random.Random) -> None:
    made = list(models.places)
    if not made or chance.random() < 0.2:
        await models.create(*chance.sample(USERS, chance.randint(1, 3)), slot=chance.randint(0, PARTITIONS - 1))
        return
    id_, user = chance.choice(made), chance.choice(USERS)
    place = models.places[id_]
    match chance.randrange(5):
        case 0 | 1 if user in place.members:
            await models.post(id_, user)
        case 2:
            await (models.remove(id_, user) if user in place.members else models.add(id_, user))
        case 3 if place.last_seq:
            await models.read(user, id_, chance.randint(1, place.last_seq))
        case _:
            await models.set_own(user, id_, pinned=chance.random() < 0.5, hidden=chance.random() < 0.3)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 40), limit=st.integers(1, 4), most=st.integers(1, 5))
async def test_a_client_that_syncs_ends_where_a_fresh_one_begins(
    pool: AsyncConnectionPool, seed: int, steps: int, limit: int, most: int
) -> None:
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}")
    chance = random.Random(seed)
    models = await Models(pool, partitions=PARTITIONS).open()
    sync, inbox = SyncQueries(pool, partitions=PARTITIONS), InboxQueries(pool, partitions=PARTITIONS)
    clients = [Client(user) for user in USERS]
    for _ in range(steps):
        await _happens(models, chance)
        for client in clients:
            if chance.random() < 0.3:  # also in the middle of a sync of several pages
                client.take(await sync.sync(client.user, client.cursor, limit=limit, events_max=most), models)
    for client in clients:
        done = False
        while not done:
            answer = await sync.sync(client.user, client.cursor, limit=limit, events_max=most)
            client.take(answer, models)
            done = answer.done and answer.cursor == models.positions.cursor(client.user)
        fresh = await inbox.page(client.user, limit=1_000, hidden=True)
        assert client.entries == {entry.conversation_id: entry for entry in fresh.conversations}
        assert client.cursor == fresh.cursor


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 1 << 32), before=st.integers(0, 20), after=st.integers(1, 20))
async def test_a_session_that_resumes_has_every_version_once(
    pool: AsyncConnectionPool, seed: int, before: int, after: int
) -> None:
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}")
    chance = random.Random(seed)
    models = await Models(pool, partitions=PARTITIONS).open()
    sync = SyncQueries(pool, partitions=PARTITIONS)
    for _ in range(before):
        await _happens(models, chance)
    cursors = {user: models.positions.cursor(user) for user in USERS}
    members = {id_: set(place.members) for id_, place in models.places.items()}
    reached = {id_: place.version for id_, place in models.places.items()}
    for _ in range(after):
        await _happens(models, chance)
    for user in USERS:
        missed = await sync.missed(user, cursors[user], limit=1_000)
        assert missed is not None
        given: dict[int, list[int]] = {}
        for event in missed.events:
            given.setdefault(int(event.conversation_id), []).append(event.version)
        stands = {one.conversation_id: one.version for one in missed.memberships}
        assert stands == {id_: place.version for id_, place in models.places.items() if user in place.members}
        for id_, version in stands.items():
            if user in members.get(id_, ()):
                assert given.get(id_, []) == list(range(reached[id_] + 1, version + 1))
            else:
                assert given[id_] == list(range(given[id_][0], version + 1))
        assert missed.cursor == models.positions.cursor(user)


# -- what it costs ------------------------------------------------------------------------------------------


async def test_no_statement_reads_a_history(pool: AsyncConnectionPool, database: str) -> None:
    """Of a conversation with 100,000 events a sync and a resume look at a handful of pages."""
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    # One connection, which counts what it looks at.
    async with AsyncConnectionPool(database, min_size=1, max_size=1, kwargs={"autocommit": True}) as alone:
        async with alone.connection() as connection:
            await connection.execute(
                """INSERT INTO changes SELECT %s, n, %s, n, 'conversation.updated', 'bob', '{}'
                   FROM generate_series(2, 100000) n""",
                (id_, models.now),
            )
            await connection.execute("UPDATE heads SET version = 100000, sequence = 100000")
            await connection.execute("UPDATE checkpoints SET sequence = 100000")
            await connection.execute("ANALYZE")
        sync, before = SyncQueries(alone), await _pages_read(alone)
        for _ in range(8):  # past the fifth, Postgres may plan for any values at all
            (entry,) = (await since(sync, "ann", Cursor((99_990,)))).conversations
            assert versions(entry.events) == list(range(99_991, 100_001))
            assert await sync.missed("ann", Cursor((99_990,)), limit=50) is not None
            assert await sync.missed("ann", Cursor((0,)), limit=50) is None
        assert 0 < await _pages_read(alone) - before < 8 * 3 * 20


async def _pages_read(pool: AsyncConnectionPool) -> int:
    """Pages of `changes` and its indexes that this pool has looked at, found in memory or not."""
    async with pool.connection() as connection:
        await connection.execute("SELECT pg_stat_clear_snapshot(), pg_stat_force_next_flush()")
        cursor = await connection.execute(
            """SELECT coalesce(sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit), 0)::int
               FROM pg_statio_user_tables WHERE relname LIKE 'changes%'"""
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
