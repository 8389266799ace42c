"""The worker: checkpoints, poison, fencing, outages."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY
from psycopg_pool import AsyncConnectionPool
from structlog.testing import capture_logs

from projections.conversations import ConversationsProjection
from projections.heads import HeadsProjection
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.projection import Connection, LoggedEvent
from projections.reader import Interrupted
from projections.worker import ProjectionWorker
from streams import subjects
from streams.memory import MemoryLog
from streams.memory.log import MemoryConsumer
from streams.ports import Delivery, LogUnavailable, Record
from streams.topology import Topology
from tests.projections.history import STREAM, History, append, chat
from tests.projections.workers import CannotApplyTheThird, Project, applied, of_conversations, rows, running

CHECKPOINTS = "SELECT projection, sequence FROM checkpoints ORDER BY projection"
OF_REQUEST = {subjects.CORRELATION: "r-1"}
SEQS = "SELECT seq FROM messages ORDER BY seq"


async def test_the_checkpoint_moves_with_the_rows(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    last = await chat(log, 700).append()
    async with project(of_conversations()) as workers:
        await applied(workers, last)
        assert [worker.events_total for worker in workers] == [last] * 3
    assert await rows(pool, CHECKPOINTS) == [("conversations", last), ("heads", last), ("messages", last)]
    assert await rows(pool, SEQS) == [(seq,) for seq in range(1, 701)]


async def test_a_worker_goes_on_from_its_checkpoint(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = chat(log, 5)
    last = await history.append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
    history.post(history.conversations[0], "bob", "later")
    last = await history.append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
        assert workers[0].events_total == 1
    assert await rows(pool, SEQS) == [(seq,) for seq in range(1, 7)]


class DiesAfterWriting(MessagesProjection):
    """Writes its rows, and is gone before the commit, the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote = asyncio.Event()
        self.alive = False

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        await super().apply(connection, batch)
        self.wrote.set()
        if not self.alive:
            await asyncio.Event().wait()


async def test_a_worker_killed_between_rows_and_commit_leaves_nothing(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    last = await chat(log, 3).append()
    projection = DiesAfterWriting()
    async with project([projection]):
        await projection.wrote.wait()
    assert await rows(pool, SEQS) == []
    assert await rows(pool, CHECKPOINTS) == [("messages", 0)]
    projection.alive = True
    async with project([projection]) as workers:
        await applied(workers, last)
    assert await rows(pool, SEQS) == [(1,), (2,), (3,)]


async def dead(log: MemoryLog) -> list[Delivery]:
    return [delivery async for delivery in log.read("DEAD")]


async def test_an_event_that_cannot_be_decoded_is_kept_dead_and_the_rest_applied(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    records = chat(log, 4).records()
    records[2] = replace(records[2], data=b"\xc1 not MessagePack")
    last = await append(log, records)
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
        assert workers[0].dead_total == 1
    assert await rows(pool, SEQS) == [(1,), (3,), (4,)]
    [buried] = await dead(log)
    assert buried.data == records[2].data
    assert buried.subject == subjects.dead("messages", 0)
    assert buried.headers[subjects.DEAD_SEQUENCE] == "3"
    assert buried.headers[subjects.DEAD_STREAM] == STREAM
    assert buried.headers[subjects.DEAD_ERROR]


def with_field(record: Record, **fields: object) -> Record:
    body = msgspec.msgpack.decode(record.data)
    return replace(record, data=msgspec.msgpack.encode(body | fields))


async def test_events_that_postgres_will_not_take_are_kept_dead(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    records = chat(log, 5).records()
    records[1] = with_field(records[1], client_msg_id="a\x00b")  # Postgres refuses NUL
    records[2] = with_field(records[2], seq={"not": "a number"})  # psycopg cannot send it
    records[3] = with_field(records[3], seq=(1 << 64) - 1)  # wider than the column
    records[4] = with_field(records[4], client_msg_id=None)  # violates NOT NULL
    last = await append(log, records)
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
    assert await rows(pool, SEQS) == [(5,)]
    assert [delivery.headers[subjects.DEAD_SEQUENCE] for delivery in await dead(log)] == ["2", "3", "4", "5"]


async def test_what_follows_a_creation_that_was_lost_is_kept_dead_too(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    lost, kept = history.create("ann", "bob"), history.create("cid", "dan")
    history.change(lost, "ann", add=["eve"])
    history.change(kept, "cid", add=["fay"])
    records = history.records()
    records[0] = replace(records[0], data=b"\xc1")
    last = await append(log, records)
    async with project([ConversationsProjection()]) as workers:
        await applied(workers, last)
    assert await rows(pool, "SELECT user_id FROM members ORDER BY 1") == [("cid",), ("dan",), ("fay",)]
    assert len(await dead(log)) == 2


async def test_two_workers_on_one_partition_apply_each_event_once(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    history = chat(log, 50)
    await history.append()
    async with running(log, pool, progress, [ConversationsProjection(), ConversationsProjection()]) as workers:
        for number in range(20):
            history.change(history.conversations[0], "ann", add=[f"user{number}"])
            last = await history.append()
            async with asyncio.timeout(20):
                while max(worker.applied_sequence for worker in workers) < last:
                    await progress.wait(0.05)
        assert sum(worker.events_total for worker in workers) == last
    assert await rows(pool, "SELECT member_count, (SELECT count(*) FROM members) FROM conversations") == [(22, 22)]


async def test_a_worker_whose_checkpoint_was_moved_applies_nothing(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = chat(log, 3)
    last = await history.append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
        async with pool.connection() as connection:
            await connection.execute("UPDATE checkpoints SET sequence = %s", (last + 1,))
        history.post(history.conversations[0], "bob", "claimed by the other")
        history.post(history.conversations[0], "bob", "ours")
        await applied(workers, await history.append())
    assert await rows(pool, SEQS) == [(1,), (2,), (3,), (5,)]


async def test_a_restored_database_is_caught_up_though_nothing_new_comes(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    last = await chat(log, 3).append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("UPDATE checkpoints SET sequence = 2")
            await connection.execute("DELETE FROM messages WHERE seq >= 2")
        async with asyncio.timeout(20):
            while len(await rows(pool, SEQS)) < 3:
                await asyncio.sleep(0.05)


async def test_a_worker_waits_for_postgres(
    log: MemoryLog, pool: AsyncConnectionPool, database: str, progress: Progress
) -> None:
    last = await chat(log, 3).append()
    later = AsyncConnectionPool(database, min_size=1, open=False, kwargs={"application_name": "killed"})
    async with running(log, later, progress, [MessagesProjection()]) as workers:
        await asyncio.sleep(0)  # its first try finds the pool closed
        await later.open()
        await applied(workers, last)
        async with pool.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'killed'"
            )
        history = History(log, slot=1)
        history.create("cid", "dan")
        await applied(workers, await history.append())
    await later.close()
    assert await rows(pool, "SELECT count(*) FROM changes") == [(5,)]


class Flickering(MemoryLog):
    """A log that is away for its first few calls."""

    failures = 3

    async def consume(self, stream: str, reader: str, *, after_sequence: int) -> MemoryConsumer:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("away")
        return await super().consume(stream, reader, after_sequence=after_sequence)


async def test_a_worker_waits_for_the_log(pool: AsyncConnectionPool, progress: Progress) -> None:
    log = Flickering()
    await log.ensure(Topology())
    last = await chat(log, 2).append()
    async with running(log, pool, progress, [MessagesProjection()]) as workers:
        await applied(workers, last)
    assert log.failures == 0


async def test_what_was_applied_is_counted(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    labels = {"stream": STREAM}
    before = REGISTRY.get_sample_value("riverrun_projection_events_total", labels) or 0
    batched = REGISTRY.get_sample_value("riverrun_projection_batch_events_sum") or 0
    last = await chat(log, 2).append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
        assert REGISTRY.get_sample_value("riverrun_projection_sequence", labels) == last
    assert REGISTRY.get_sample_value("riverrun_projection_sequence", labels) is None  # given up: another's to show
    assert REGISTRY.get_sample_value("riverrun_projection_events_total", labels) == before + last
    assert (REGISTRY.get_sample_value("riverrun_projection_batch_events_sum") or 0) == batched + last


async def test_projections_that_share_a_reading_do_not_share_a_failure(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    last = await chat(log, 4).append()
    worker = ProjectionWorker(log, pool, [CannotApplyTheThird(), HeadsProjection()], partition=0, progress=progress)
    task = asyncio.create_task(worker.run())
    try:
        await applied([worker], last)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await rows(pool, SEQS) == [(1,), (3,), (4,)]
    assert await rows(pool, "SELECT version FROM heads") == [(last,)]
    assert [delivery.subject for delivery in await dead(log)] == [subjects.dead("messages", 0)]


async def test_the_line_about_a_dead_event_names_its_request(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    records = chat(log, 2).records()
    last = await append(log, [replace(record, headers={**record.headers, **OF_REQUEST}) for record in records])
    with capture_logs() as lines:
        async with running(log, pool, progress, [CannotApplyTheThird()]) as workers:
            await applied(workers, last)
    [line] = [line for line in lines if line["event"] == "event not applied, kept in DEAD"]
    assert (line["correlation_id"], line["sequence"]) == ("r-1", 3)


async def test_a_projection_that_is_behind_the_others_catches_up_with_them(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress, project: Project
) -> None:
    history = chat(log, 5)
    last = await history.append()
    async with project([HeadsProjection()]) as workers:
        await applied(workers, last)
    history.post(history.conversations[0], "bob", "later")
    last = await history.append()
    worker = ProjectionWorker(log, pool, [HeadsProjection(), MessagesProjection()], partition=0, progress=progress)
    task = asyncio.create_task(worker.run())
    try:
        await applied([worker], last)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await rows(pool, SEQS) == [(seq,) for seq in range(1, 7)]
    assert await rows(pool, CHECKPOINTS) == [("heads", last), ("messages", last)]


async def test_a_database_of_another_log_is_not_continued(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress, project: Project
) -> None:
    last = await chat(log, 9).append()
    async with project([HeadsProjection()]) as workers:
        await applied(workers, last)
    other = MemoryLog()
    await other.ensure(Topology())
    await chat(other, 3).append()
    worker = ProjectionWorker(other, pool, [HeadsProjection()], partition=0, progress=progress)
    with pytest.raises(Interrupted, match="another log"):
        await worker.position()
