"""A log in memory, to be archived."""

import pytest_asyncio

from streams.memory import MemoryLog
from streams.topology import Topology


@pytest_asyncio.fixture(loop_scope="session")
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.ensure(Topology())
    return log
