"""Snapshots in Postgres: kept, replaced only by newer ones, and never in the way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio
from psycopg_pool import AsyncConnectionPool

from commands.ports import Snapshot
from commands.snapshots import PostgresSnapshots
from migrations.postgres.apply import upgrade

SNAPSHOT = Snapshot("conv", "42", version=10, sequence=99, schema=1, state=b"\x00state\xff")


@pytest_asyncio.fixture(loop_scope="session")
async def snapshots(postgres_url: str) -> AsyncIterator[PostgresSnapshots]:
    await asyncio.to_thread(upgrade, postgres_url)
    async with AsyncConnectionPool(postgres_url, min_size=1, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE snapshots")
        yield PostgresSnapshots(pool)


async def test_a_saved_snapshot_is_loaded(snapshots: PostgresSnapshots) -> None:
    await snapshots.save(SNAPSHOT)
    assert await snapshots.load("conv", "42") == SNAPSHOT
    assert await snapshots.load("conv", "43") is None


async def test_a_user_and_a_conversation_of_one_id_are_two(snapshots: PostgresSnapshots) -> None:
    await snapshots.save(SNAPSHOT)
    assert await snapshots.load("user", "42") is None
    of_user = replace(SNAPSHOT, family="user", version=3)
    await snapshots.save(of_user)
    assert await snapshots.load("user", "42") == of_user
    assert await snapshots.load("conv", "42") == SNAPSHOT


async def test_an_older_snapshot_does_not_replace_a_newer(snapshots: PostgresSnapshots) -> None:
    await snapshots.save(SNAPSHOT)
    await snapshots.save(replace(SNAPSHOT, version=9, state=b"older"))
    assert await snapshots.load("conv", "42") == SNAPSHOT
    newer = replace(SNAPSHOT, version=11, state=b"newer")
    await snapshots.save(newer)
    assert await snapshots.load("conv", "42") == newer


async def test_without_postgres_there_is_no_snapshot_and_no_error() -> None:
    pool = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, open=False)
    await pool.open()
    snapshots = PostgresSnapshots(pool)
    async with asyncio.timeout(5):
        await snapshots.save(SNAPSHOT)
        assert await snapshots.load("conv", "42") is None
    await pool.close()
