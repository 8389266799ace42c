"""A migrated database, emptied for every test, and a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio
from psycopg_pool import AsyncConnectionPool

from migrations.postgres.apply import upgrade
from projections.archive.clickhouse import ClickHouse
from projections.progress import Progress
from projections.projection import Projection
from projections.tables import metadata
from projections.tiers.months import MODELS, warm_months
from streams.memory import MemoryLog
from streams.topology import Topology
from tests.projections.archived import ColdStore
from tests.projections.workers import Project, Workers, projections, running

TABLES = ", ".join(metadata.tables)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(postgres_url: str) -> str:
    await asyncio.to_thread(upgrade, postgres_url)
    return postgres_url


@pytest_asyncio.fixture(loop_scope="session")
async def pool(database: str) -> AsyncIterator[AsyncConnectionPool]:
    pool = AsyncConnectionPool(database, min_size=1, max_size=8, open=False, kwargs={"autocommit": True})
    await pool.open()
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}")
    yield pool
    await pool.close()


@pytest_asyncio.fixture(loop_scope="session")
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.ensure(Topology())
    return log


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def project(pool: AsyncConnectionPool, log: MemoryLog, progress: Progress) -> Project:
    """Runs workers over the log while the context is open."""

    def make(chosen: list[Projection] | None = None) -> AbstractAsyncContextManager[Workers]:
        return running(log, pool, progress, chosen or projections())

    return make


@pytest.fixture
def store(clickhouse: ClickHouse) -> ColdStore:
    return ColdStore(clickhouse)


@pytest_asyncio.fixture(loop_scope="session")
async def months(pool: AsyncConnectionPool) -> None:
    """No month of another test is left."""
    async with pool.connection() as connection:
        for model in MODELS:
            for month in await warm_months(connection, model):
                await connection.execute(f"DROP TABLE {month.partition}".encode())
