"""Two workers that meet an event of the same new month."""

import asyncio
from datetime import UTC, datetime

from psycopg_pool import AsyncConnectionPool

from projections.months import ensure_months
from projections.tables import messages
from tests.projections.workers import rows

MONTH = datetime(2031, 5, 7, tzinfo=UTC)
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
PARTITIONS = "SELECT count(*) FROM pg_class WHERE relname = 'messages_2031_05'"


async def test_one_makes_the_month_and_the_other_finds_it(pool: AsyncConnectionPool) -> None:
    async with pool.connection() as first, pool.connection() as second:

        async def ensure_second() -> None:
            async with second.transaction():
                await ensure_months(second, [messages], [MONTH])

        async with first.transaction():
            await ensure_months(first, [messages], [MONTH])
            waiting = asyncio.create_task(ensure_second())
            async with asyncio.timeout(10):
                while await rows(pool, WAITING) != [(1,)]:
                    await asyncio.sleep(0.01)
        await waiting
    assert await rows(pool, PARTITIONS) == [(1,)]
