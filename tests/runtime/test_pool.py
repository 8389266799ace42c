"""The pool keeps its connections, whoever is cancelled where."""

import asyncio
import contextlib
import random

import psycopg
import pytest

from runtime.pool import Pool

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 5
ASKING = 60
ROUNDS = 15


async def test_no_connection_is_lost_to_cancellation(postgres_url: str) -> None:
    chance = random.Random(1)
    async with Pool(postgres_url, min_size=2, max_size=SIZE, open=False, kwargs={"autocommit": True}) as pool:

        async def ask() -> None:
            limit_s, sleep_s = 0.03 + chance.random() * 0.08, chance.random() * 0.03
            with contextlib.suppress(TimeoutError, psycopg.Error):
                async with asyncio.timeout(limit_s), pool.connection(timeout=0.05) as connection:
                    await connection.execute("SELECT pg_sleep(%s)", (sleep_s,))

        for _ in range(ROUNDS):
            tasks = [asyncio.create_task(ask()) for _ in range(ASKING)]
            for task in tasks:
                if chance.random() < 0.6:
                    asyncio.get_running_loop().call_later(chance.random() * 0.12, task.cancel)
            await asyncio.gather(*tasks, return_exceptions=True)

        async with contextlib.AsyncExitStack() as stack:
            for _ in range(SIZE):
                connection = await stack.enter_async_context(pool.connection(timeout=5))
                await connection.execute("SELECT 1")
