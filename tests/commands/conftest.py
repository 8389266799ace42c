"""The logs that writers are tested over: in memory, and JetStream."""

from collections.abc import AsyncIterator

import pytest

from streams.jetstream import JetStream
from streams.memory import MemoryLog
from streams.topology import Topology
from tests.commands.harness import FaultyLog
from tests.conftest import NatsServerFactory


@pytest.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest, nats_server: NatsServerFactory) -> AsyncIterator[FaultyLog]:
    if request.param == "memory":
        memory = MemoryLog()
        await memory.ensure(Topology())
        yield FaultyLog(memory)
        return
    server = await nats_server()
    connection = await JetStream.connect(server.url, name="test")
    try:
        await connection.log.ensure(Topology())
        yield FaultyLog(connection.log)
    finally:
        await connection.close()
