"""An embedded ClickHouse for tests, without the other servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from runtime.embedded.child import free_port
from runtime.embedded.clickhouse import ClickHouseServer

LIMITS: Final = {
    "max_execution_time": 1,
    "max_result_rows": 10_000,
    "max_result_bytes": 1 << 20,
    "max_memory_usage": 200 << 20,
}


@asynccontextmanager
async def clickhouse_server(directory: Path) -> AsyncIterator[ClickHouseServer]:
    """One that runs while the context lasts."""
    server = ClickHouseServer(directory / "clickhouse", directory / "clickhouse.log", free_port(), LIMITS)
    await server.child.start()
    try:
        yield server
    finally:
        await server.child.stop()
