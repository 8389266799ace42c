"""An empty ClickHouse database for every test, and a log in memory. All of them are in one chDB of this process."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex

import clickhouse_connect
import pytest
import pytest_asyncio

from projections.archive.clickhouse import ClickHouse
from streams.memory import MemoryLog
from streams.topology import Topology


@pytest.fixture(scope="session")
def chdb() -> Iterator[str]:
    """A directory that belongs to this process."""
    with tempfile.TemporaryDirectory(prefix="riverrun-tests-") as folder:
        yield f"chdb://{folder}/clickhouse"


@pytest.fixture
def clickhouse_url(chdb: str) -> Iterator[str]:
    name = f"test_{token_hex(6)}"
    client = clickhouse_connect.get_client(dsn=chdb)
    client.command(f"CREATE DATABASE {name}")
    yield f"{chdb}?database={name}"
    client.command(f"DROP DATABASE {name}")
    client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def clickhouse(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    clickhouse = ClickHouse(clickhouse_url)
    yield clickhouse
    await clickhouse.close()


@pytest_asyncio.fixture(loop_scope="session")
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.ensure(Topology())
    return log
