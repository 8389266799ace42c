"""What a worker tells of its commits: every one, with the position that all of its projections have."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import AsyncConnectionPool

from domain.events import ReadMoved
from projections.heads import HeadsProjection
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.projection import Connection, LoggedEvent, Projection
from projections.worker import ProjectionWorker
from streams import subjects
from streams.memory import MemoryLog
from tests.projections.history import STREAM, USERS, UserHistory, chat
from tests.projections.workers import WAIT_S, CannotApplyTheThird, applied, of_users, rows

CHECKPOINTS = "SELECT projection, sequence FROM checkpoints ORDER BY projection"


class Told:
    """Who is told of commits, and what they were told."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, list[int], int]] = []

    def __call__(self, stream: str, batch: Sequence[LoggedEvent], sequence: int) -> None:
        self.commits.append((stream, [logged.sequence for logged in batch], sequence))

    async def times(self, count: int, progress: Progress) -> None:
        """Wait until told so often."""
        async with asyncio.timeout(WAIT_S):
            while len(self.commits) < count:
                await progress.wait(0.05)

    @property
    def events(self) -> list[int]:
        return [sequence for _, batch, _ in self.commits for sequence in batch]


@asynccontextmanager
async def following(worker: ProjectionWorker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_commit_is_told_with_its_events(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    history = chat(log, 700)
    last = await history.append()
    told = Told()
    worker = ProjectionWorker(log, pool, [HeadsProjection()], partition=0, progress=progress, on_commit=told)
    async with following(worker):
        await applied([worker], last)
        history.post(history.conversations[0], "bob", "later")
        last = await history.append()
        await applied([worker], last)
    assert told.events == list(range(1, last + 1))
    assert [stream for stream, _, _ in told.commits] == [STREAM] * len(told.commits)
    assert all(batch[-1] == sequence for _, batch, sequence in told.commits)


async def test_users_partitions_are_followed_too(log: MemoryLog, pool: AsyncConnectionPool, progress: Progress) -> None:
    users = UserHistory(log)
    users.happened("ann", ReadMoved, conversation_id=7, seq=3)
    last = await users.append()
    told = Told()
    projections = of_users()
    worker = ProjectionWorker(
        log, pool, projections, family=subjects.USER, partition=0, progress=progress, on_commit=told
    )
    async with following(worker):
        await applied([worker], last, USERS)
    assert (worker.stream, worker.reader) == ("USER-0", "users+markers")
    assert told.commits == [("USER-0", [1, 2], 2)]
    assert await rows(pool, CHECKPOINTS) == [("markers", 2), ("users", 2)]


async def test_a_position_is_told_when_all_projections_have_it(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    last = await chat(log, 4).append()
    told = Told()
    chosen: list[Projection] = [CannotApplyTheThird(), HeadsProjection()]
    worker = ProjectionWorker(log, pool, chosen, partition=0, progress=progress, on_commit=told)
    async with following(worker):
        await applied([worker], last)
    # One projection after the other, the first in ever smaller parts: the second one's commit moves the place.
    assert told.commits == [
        (STREAM, [1, 2], 0),
        (STREAM, [], 0),
        (STREAM, [4, 5], 0),
        (STREAM, [1, 2, 3, 4, 5], last),
    ]


class LosesItsAnswer(HeadsProjection):
    """Its transaction is committed, once; the worker hears of a broken connection."""

    def __init__(self) -> None:
        self.lost = False

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        await super().apply(connection, batch)
        if not self.lost and batch[-1].sequence > 2:
            self.lost = True
            await connection.execute("COMMIT")
            await connection.close()
            raise psycopg.OperationalError("the connection is lost")


async def test_a_commit_whose_answer_was_lost_is_told(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    history = chat(log, 1)
    last = await history.append()
    told = Told()
    projection = LosesItsAnswer()
    worker = ProjectionWorker(log, pool, [projection], partition=0, progress=progress, on_commit=told)
    async with following(worker):
        await applied([worker], last)
        history.post(history.conversations[0], "bob", "later")
        await history.append()
        await told.times(2, progress)
    assert projection.lost
    assert worker.events_total == 2
    assert told.commits == [(STREAM, [1, 2], 2), (STREAM, [3], 3)]


async def test_a_database_that_was_put_back_is_told_by_a_position_that_goes_back(
    log: MemoryLog, pool: AsyncConnectionPool, progress: Progress
) -> None:
    last = await chat(log, 3).append()
    told = Told()
    worker = ProjectionWorker(log, pool, [MessagesProjection()], partition=0, progress=progress, on_commit=told)
    async with following(worker):
        await applied([worker], last)
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("UPDATE checkpoints SET sequence = 2")
            await connection.execute("DELETE FROM messages WHERE seq >= 2")
        await told.times(3, progress)
    assert [(batch, sequence) for _, batch, sequence in told.commits] == [([1, 2, 3, 4], 4), ([], 2), ([3, 4], 4)]
