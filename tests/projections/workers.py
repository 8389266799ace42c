"""Running workers in tests, and waiting for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from psycopg_pool import AsyncConnectionPool

from projections.conversations import ConversationsProjection
from projections.heads import HeadsProjection
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.projection import Projection
from projections.worker import ProjectionWorker
from streams.ports import Log

WAIT_S = 20.0

Workers = list[ProjectionWorker]
Project = Callable[..., AbstractAsyncContextManager[Workers]]


def projections() -> list[Projection]:
    return [ConversationsProjection(), HeadsProjection(), MessagesProjection()]


@asynccontextmanager
async def running(
    log: Log, pool: AsyncConnectionPool, progress: Progress, chosen: list[Projection]
) -> AsyncIterator[Workers]:
    workers = [ProjectionWorker(log, pool, [projection], partition=0, progress=progress) for projection in chosen]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield workers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def applied(workers: Workers, sequence: int) -> None:
    """Wait until all have applied a sequence."""
    async with asyncio.timeout(WAIT_S):
        while any(worker.applied_sequence < sequence for worker in workers):
            await asyncio.sleep(0.005)


async def rows(pool: AsyncConnectionPool, statement: str) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()
