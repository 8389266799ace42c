"""A nats-server for the tests of this folder, empty before each test, and the two implementations side by side."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer
from streams.jetstream import JetStream
from streams.jetstream.api import call
from streams.jetstream.connection import Connection
from streams.memory import MemoryBus, MemoryLog, MemoryNodes
from streams.ports import Bus, Log, Nodes


@dataclass(frozen=True, slots=True)
class Streams:
    """One implementation of the three ports."""

    log: Log
    bus: Bus
    nodes: Nodes


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def freeze(server: NatsServer) -> None:
    """Stop a server's process as it stands, until SIGCONT. The signal alone takes effect at some later moment."""
    pid = server.child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: set(_states(pid)) == {"T"})


def _states(pid: int) -> Iterator[str]:
    """Those of the threads of a process."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it ended
            yield (thread / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(scope="session")
def nats_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared server keeps its streams."""
    return tmp_path_factory.mktemp("streams")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_nats(nats_folder: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(nats_folder / "nats", nats_folder / "nats.log", free_port(), free_port())
    await server.child.start()
    yield server
    await server.child.stop()


def _is_gone(folder: Path, stream: str) -> bool:
    return not list(folder.glob(f"nats/store/jetstream/*/streams/{stream}"))


@pytest_asyncio.fixture(loop_scope="session")
async def nats(shared_nats: NatsServer, nats_folder: Path) -> NatsServer:
    """The shared server, without a stream."""
    connection = await Connection.open(shared_nats.url, name="sweeper", timeout_s=5)
    for name in (await call(connection, "STREAM.NAMES"))["streams"] or []:
        await call(connection, f"STREAM.DELETE.{name}")
        # The server answers before the files are gone, and could not make a stream of this name among them (10049).
        await until(partial(_is_gone, nats_folder, name))
    await connection.close()
    return shared_nats


@pytest_asyncio.fixture(loop_scope="session")
async def jetstream(nats: NatsServer) -> AsyncIterator[JetStream]:
    connected = await JetStream.connect(nats.url, name="test")
    yield connected
    await connected.close()


@pytest_asyncio.fixture(params=["memory", "jetstream"], loop_scope="session")
async def streams(request: pytest.FixtureRequest, nats: NatsServer) -> AsyncIterator[Streams]:
    if request.param == "memory":
        bus = MemoryBus()
        yield Streams(MemoryLog(bus), bus, MemoryNodes())
        return
    connected = await JetStream.connect(nats.url, name="test")
    yield Streams(connected.log, connected.bus, connected.nodes)
    await connected.close()
