"""Read models rebuilt beside those in force, compared with them, and put in their place."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from domain import events
from projections.applying import OtherVersion
from projections.archive.clickhouse import ClickHouse
from projections.catalogue import CATALOGUE, NAMES, tables_of
from projections.dead import dead_events
from projections.differences import Difference
from projections.heads import HeadsProjection
from projections.projection import Connection, LoggedEvent
from projections.rebuild.loading import Order, TellLoaded
from projections.rebuild.rebuilding import AnotherRebuild
from projections.rebuild.shadowing import shadow
from projections.tiers.cold import Cold
from projections.tiers.policy import WarmPolicy
from projections.tiers.scheduler import StoreScheduler
from projections.verification import verify
from streams.archived import ArchivedLog
from streams.memory import MemoryLog
from streams.ports import LogUnavailable
from tests.archive.archiving import archive_all
from tests.projections.archived import ColdStore
from tests.projections.history import STREAM, USERS, History, UserHistory, append
from tests.projections.rebuilds import drafts, rebuilder, with_loader
from tests.projections.test_tiers import a_year
from tests.projections.workers import Project, Workers, applied, rows

WARM = "SELECT conversation_id, version, occurred_at, sequence, data FROM changes ORDER BY 1, 2"
CHECKPOINTS = "SELECT projection, sequence, version FROM checkpoints ORDER BY projection"


class Town:
    """A log that grows, and workers that keep up with it."""

    def __init__(self, log: MemoryLog) -> None:
        self.history = History(log)
        self.users = UserHistory(log)
        for number in range(6):
            self.history.create("ann", "bob", f"user{number}", name=f"Town {number}")

    async def talk(self, messages: int) -> None:
        """Everybody says something, reads it, and some come and go."""
        history, users = self.history, self.users
        for number in range(messages):
            conversation = history.conversations[number % len(history.conversations)]
            history.post(conversation, ("ann", "bob")[number % 2], f"message {number}: é 🚲")
            reader = ("ann", "bob")[number % 2]
            users.happened(reader, events.ReadMoved, conversation_id=int(conversation.id), seq=conversation.last_seq)
        first = history.conversations[0]
        history.change(first, "ann", add=["cid"])
        history.change(first, "ann", remove=["cid"])
        history.rename(first, "ann", "Another")
        users.happened("ann", events.ProfileUpdated, display_name="Ann", avatar_url=None, attributes={"team": "a"})
        users.happened("ann", events.DeviceRegistered, device_id="phone", kind="mobile")
        users.happened("bob", events.UserBlocked, user_id="eve")
        await history.append()
        await users.append()

    async def applied(self, workers: Workers) -> None:
        """Wait for the workers."""
        for stream in (STREAM, USERS):
            await applied(workers, await self.history.log.last_sequence(stream), stream)


async def differences(log: MemoryLog, pool: AsyncConnectionPool) -> list[str]:
    return [str(one) for one in (await verify(log, str(pool.conninfo), partitions=1, wait_s=5)).differences]


async def test_what_is_rebuilt_is_what_was_there_and_the_workers_go_on(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(50)
    async with project() as workers:
        await town.applied(workers)
        told: list[tuple[str, int, int]] = []
        rebuilt = await rebuilder(log, pool, tell=lambda *step: told.append(step)).rebuild(NAMES)
        assert rebuilt.compared is not None
        assert {one.table: one.different for one in rebuilt.compared} == {
            table.name: 0 for name in NAMES for table in tables_of(name)
        }
        assert sum(one.rows for one in rebuilt.compared) > 100
        assert rebuilt.swapped
        assert rebuilt.equal
        await town.talk(50)
        await town.applied(workers)
    assert await differences(log, pool) == []
    assert await drafts(pool) == []
    assert [phase for phase, *_ in told if phase != "loading"] == ["waiting", "indexing", "comparing", "swapping"]
    assert told[-4] == ("loading", rebuilt.events, rebuilt.events)


async def test_what_was_lost_or_changed_is_told_and_comes_back(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(20)
    async with project() as workers:
        await town.applied(workers)
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM messages WHERE seq = 2")
            await connection.execute("UPDATE markers SET read_seq = read_seq + 1 WHERE user_id = 'bob'")
            await connection.execute("INSERT INTO blocks VALUES ('zoe', 'ann', true, now(), 1)")
        kept = await rebuilder(log, pool).rebuild(NAMES, only_if_equal=True)
        assert (kept.swapped, kept.equal) == (False, False)
        rebuilt = await rebuilder(log, pool).rebuild(NAMES)
        assert (rebuilt.swapped, rebuilt.equal) == (True, False)
        assert kept.compared == rebuilt.compared
        assert rebuilt.compared is not None
        assert {one.table: one.different for one in rebuilt.compared if one.different} == {
            "messages": 6,
            "markers": 1,
            "blocks": 1,
        }
        named = {str(difference) for one in rebuilt.compared for difference in one.differences}
        assert "blocks: user zoe: 1 rows in force, 0 in the new one" in named
        assert f"messages: conversation {town.history.conversations[5].id}: 2 rows in force, 3 in the new one" in named
        await town.talk(3)
        await town.applied(workers)
    assert await differences(log, pool) == []


async def test_one_projection_alone_and_tables_that_are_gone(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(20)
    async with project() as workers:
        await town.applied(workers)
    before = await rows(pool, "SELECT tableoid, ctid FROM heads")
    async with pool.connection() as connection:
        await connection.execute("DROP TABLE messages, changes, markers")
    rebuilt = await rebuilder(log, pool).rebuild(["messages", "markers"])
    assert rebuilt.compared is not None
    assert {one.table for one in rebuilt.compared if one.different} == {"messages", "changes", "markers"}
    assert await rows(pool, "SELECT tableoid, ctid FROM heads") == before
    assert await differences(log, pool) == []


async def test_the_new_tables_have_the_names_and_indexes_of_the_old(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    shape = """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()
            AND tablename = ANY(%s) ORDER BY indexname"""
    tables = [table.name for name in NAMES for table in tables_of(name)]
    tables += ["messages_2026_01", "messages_2026_02", "changes_2026_01", "changes_2026_02"]
    town = Town(log)
    await town.talk(20)
    async with project() as workers, pool.connection() as connection:
        await town.applied(workers)
        before = await (await connection.execute(shape, (tables,))).fetchall()
        await rebuilder(log, pool).rebuild(NAMES)
        assert await (await connection.execute(shape, (tables,))).fetchall() == before
        await town.talk(5)
        await town.applied(workers)


async def test_a_second_rebuild_is_refused_and_what_a_killed_one_left_is_dropped(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(20)
    loading, forever = asyncio.Event(), asyncio.Event()

    async def stuck(_orders: Sequence[Order], _tell: TellLoaded) -> None:
        loading.set()
        await forever.wait()

    async with project() as workers:
        await town.applied(workers)
        first = asyncio.create_task(with_loader(rebuilder(log, pool), stuck).rebuild(NAMES))
        await loading.wait()
        with pytest.raises(AnotherRebuild, match="another rebuild"):
            await rebuilder(log, pool).rebuild(["heads"])
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        async with pool.connection() as connection:  # as of one that was killed
            await connection.execute("CREATE SCHEMA draft_0123abcd; CREATE TABLE draft_0123abcd.heads (a int)")
        assert (await rebuilder(log, pool).rebuild(["heads"])).equal
    assert await drafts(pool) == []


async def test_what_was_dead_and_can_be_applied_now_is_taken_off_the_list(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(20)
    async with project() as workers:
        await town.applied(workers)
    async with pool.connection() as connection:  # a defect that the new table does not have
        await connection.execute("ALTER TABLE heads ADD CONSTRAINT defect CHECK (preview <> 'mended')")
    town.history.post(town.history.conversations[1], "ann", "mended")
    await town.history.append()
    async with project() as workers:
        await town.applied(workers)
    [dead] = await dead_events(log)
    assert dead.projection == "heads"
    rebuilt = await rebuilder(log, pool).rebuild(["heads"])
    assert rebuilt.died == []
    assert await dead_events(log) == []
    assert await differences(log, pool) == []


async def test_an_old_event_that_nobody_can_read_is_passed_over_as_by_a_worker(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    town = Town(log)
    await town.talk(20)
    town.history.post(town.history.conversations[0], "ann", "unreadable")
    [unreadable] = town.history.records()
    last = await append(log, [replace(unreadable, data=b"\xc1")]) - 1
    town.history.post(town.history.conversations[0], "ann", "after")
    await town.history.append()
    rebuilt = await rebuilder(log, pool).rebuild(NAMES)
    places = {("conversations", last + 1), ("heads", last + 1), ("messages", last + 1)}
    assert {(died.projection, died.sequence) for died in rebuilt.died} == places
    assert {(dead.projection, dead.sequence) for dead in await dead_events(log)} == places
    assert rebuilt.compared is None  # nothing was in force
    again = await rebuilder(log, pool).rebuild(NAMES)
    assert again.equal
    assert len(again.died) == len(await dead_events(log)) == 3
    async with project() as workers:
        await town.applied(workers)
        await town.talk(3)
        await town.applied(workers)
    assert len(await dead_events(log)) == 3


async def test_a_worker_does_not_write_into_tables_of_another_version(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(log)
    await town.talk(20)
    async with project() as workers:
        await town.applied(workers)
        monkeypatch.setattr(HeadsProjection, "version", 2)
        for worker in workers:
            if worker.reader == "heads":
                with pytest.raises(OtherVersion, match="`riverrun rebuild heads`"):
                    await worker.position()
        await town.talk(3)
        others = [worker for worker in workers if worker.reader != "heads"]
        await town.applied(others)
        assert ("heads", 45, 1) not in await rows(pool, CHECKPOINTS)
        await rebuilder(log, pool).rebuild(["heads"])
        await town.applied(workers)
    assert {version for name, _, version in await rows(pool, CHECKPOINTS) if name == "heads"} == {2}
    assert {version for name, _, version in await rows(pool, CHECKPOINTS) if name != "heads"} == {1}
    assert await differences(log, pool) == []


async def test_a_trimmed_log_is_read_from_the_archive_and_a_gap_is_refused(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, clickhouse: ClickHouse
) -> None:
    town = Town(log)
    await town.talk(30)
    async with project() as workers:
        await town.applied(workers)
        archive = await archive_all(log, clickhouse)
        archived = await log.last_sequence(STREAM)
        await log.trim(STREAM, archived)
        await town.talk(10)
        await town.applied(workers)
        rebuilt = await rebuilder(ArchivedLog(log, archive), pool).rebuild(NAMES)
        assert rebuilt.equal
        assert rebuilt.events > archived
        await log.trim(STREAM, archived + 5)
        with pytest.raises(LogUnavailable, match=f"trimmed up to {archived + 5} and archived up to {archived} only"):
            await rebuilder(ArchivedLog(log, archive), pool).rebuild(NAMES)
        assert await drafts(pool) == []


@pytest.mark.usefixtures("months")
async def test_what_has_left_for_the_archive_does_not_come_back(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, store: ColdStore
) -> None:
    await a_year(log, project, store)
    history = History(log, slot=1, step=timedelta(days=20))
    for kind in ("group", "direct"):
        kept = history.create("ann", "bob", kind=kind)
        for number in range(6):
            history.post(kept, "ann", f"{kind} {number}")
    last = await history.append()
    now = datetime(2026, 8, 15, tzinfo=UTC)
    policy = WarmPolicy.parse("3,direct=12")
    async with project() as workers:
        await applied(workers, last)
        await store.archive(log, STREAM)
        scheduler = StoreScheduler(pool, Cold(store, partitions=1), policy, now=lambda: now)
        assert {step.outcome async for step in scheduler.round()} == {"moved"}
        warm = await rows(pool, WARM)
        assert len(warm) < last - 10  # some have left
        rebuilt = await rebuilder(log, pool, warm_months="3,direct=12", now=now).rebuild(NAMES)
        assert rebuilt.swapped
        assert await rows(pool, WARM) == warm
        assert {step.outcome async for step in scheduler.round()} == set()
    report = await verify(log, str(pool.conninfo), partitions=1, wait_s=5, cold=store)
    assert [str(one) for one in report.differences] == []


class Shouts(HeadsProjection):
    """Changed code: previews are in capitals."""

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        await super().apply(connection, batch)
        await connection.execute("UPDATE heads SET preview = upper(preview)")


async def test_a_shadow_tells_where_changed_code_makes_other_rows(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    town, stop, told = Town(log), asyncio.Event(), asyncio.Queue[tuple[str, bool]]()
    await town.talk(20)
    monkeypatch.setitem(CATALOGUE, "heads", CATALOGUE["heads"]._replace(make=Shouts))

    async def next_told() -> tuple[str, bool]:
        async with asyncio.timeout(20):
            return await told.get()

    def on_difference(difference: Difference, is_one: bool) -> None:
        told.put_nowait((str(difference), is_one))

    async with project() as workers:
        await town.applied(workers)
        following = asyncio.create_task(
            shadow(rebuilder(log, pool), ["heads", "markers"], stop=stop, on_difference=on_difference)
        )
        ids = [conversation.id for conversation in town.history.conversations]
        differing = {(f"heads: conversation {id_}: 1 rows, with another content", True) for id_ in ids}
        assert {await next_told() for _ in ids} == differing
        town.history.post(town.history.conversations[2], "ann", "LOUD")
        await town.history.append()
        assert await next_told() == (f"heads: conversation {ids[2]}: 1 rows, with another content", False)
        stop.set()
        shadowed = await following
        assert {key for _, key in shadowed.differences} == {int(id_) for id_ in ids if id_ != ids[2]}
        assert {name: one.different for name, one in shadowed.compared.items()} == {
            "heads": 5,
            "markers": 0,
            "own_settings": 0,
        }
        assert told.empty()
        await town.talk(5)
        await town.applied(workers)
    assert await drafts(pool) == []
    assert await differences(log, pool) == []
