"""Running workers in tests, and waiting for them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from psycopg_pool import AsyncConnectionPool

from projections.conversations import ConversationsProjection
from projections.heads import HeadsProjection
from projections.markers import MarkersProjection
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.projection import Connection, LoggedEvent, Projection
from projections.users import UsersProjection
from projections.worker import ProjectionWorker
from streams import subjects
from streams.ports import Log
from tests.projections.history import STREAM

WAIT_S = 20.0

Workers = list[ProjectionWorker]
Project = Callable[..., AbstractAsyncContextManager[Workers]]


def of_conversations() -> list[Projection]:
    return [ConversationsProjection(), HeadsProjection(), MessagesProjection()]


def of_users() -> list[Projection]:
    return [UsersProjection(), MarkersProjection()]


def projections() -> list[Projection]:
    return [*of_conversations(), *of_users()]


def family_of(projection: Projection) -> str:
    return subjects.USER if isinstance(projection, UsersProjection | MarkersProjection) else subjects.CONV


@asynccontextmanager
async def running(
    log: Log, pool: AsyncConnectionPool, progress: Progress, chosen: list[Projection]
) -> AsyncIterator[Workers]:
    workers = [
        ProjectionWorker(log, pool, [projection], family=family_of(projection), partition=0, progress=progress)
        for projection in chosen
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield workers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def applied(workers: Workers, sequence: int, stream: str = STREAM) -> None:
    """Wait until all that follow a stream have applied a sequence."""
    followers = [worker for worker in workers if worker.stream == stream]
    async with asyncio.timeout(WAIT_S):
        while any(worker.applied_sequence < sequence for worker in followers):
            await asyncio.sleep(0.005)


async def rows(pool: AsyncConnectionPool, statement: str) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()


class CannotApplyTheThird(MessagesProjection):
    """Fails on one event, whatever batch it comes in."""

    name = "messages"

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        if any(logged.sequence == 3 for logged in batch):
            raise ValueError("cannot be applied")
        await super().apply(connection, batch)
