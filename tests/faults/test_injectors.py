"""The instruments that do harm do the harm they say, and no other."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.clock import Offset
from tests.faults.disks import CannotMount, Disk
from tests.faults.proxy import Network, Proxy

SILENCE_S = 0.1  # in which nothing may come


class Echo:
    """A server that says everything twice, and what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                self.heard += data
                writer.write(data + data)
        finally:
            writer.close()


@pytest_asyncio.fixture(loop_scope="session")
async def echo() -> AsyncIterator[Echo]:
    server_side = Echo()
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0)
    server_side.port = server.sockets[0].getsockname()[1]
    yield server_side
    server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    started = await Proxy("127.0.0.1", echo.port).start()
    yield started
    await started.stop()


async def connected(stack: AsyncExitStack, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader, writer


async def nothing_comes(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)


async def until_heard(echo: Echo, data: bytes) -> None:
    async with asyncio.timeout(5):
        while echo.heard != data:
            await asyncio.sleep(0.005)


async def test_a_partition_of_one_way_holds_back_that_way_only(echo: Echo, proxy: Proxy) -> None:
    async with AsyncExitStack() as stack:
        reader, writer = await connected(stack, proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(2) == b"aa"
        proxy.hold(to_server=False, to_client=True)
        writer.write(b"b")
        await until_heard(echo, b"ab")
        await nothing_comes(reader)
        proxy.heal()
        assert await reader.readexactly(2) == b"bb"
        proxy.hold(to_server=True, to_client=False)
        writer.write(b"c")
        await nothing_comes(reader)
        assert echo.heard == b"ab"
        proxy.heal()
        assert await reader.readexactly(2) == b"cc"


async def test_a_connection_made_in_a_partition_is_held_back_too(echo: Echo, proxy: Proxy) -> None:
    async with AsyncExitStack() as stack:
        proxy.hold(to_server=True, to_client=True)
        reader, writer = await connected(stack, proxy.port)
        writer.write(b"a")
        await nothing_comes(reader)
        assert echo.heard == b""
        proxy.heal()
        assert await reader.readexactly(2) == b"aa"


async def test_a_cut_ends_connections_and_refuses_others(proxy: Proxy) -> None:
    async with AsyncExitStack() as stack:
        reader, writer = await connected(stack, proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(2) == b"aa"
        await proxy.cut()
        for _ in range(2):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            reader, writer = await connected(stack, proxy.port)
        proxy.heal()
        reader, writer = await connected(stack, proxy.port)
        writer.write(b"b")
        assert await reader.readexactly(2) == b"bb"


async def test_nobody_is_told_of_a_way_around_the_proxy() -> None:
    said = b'INFO {"server_id":"x","connect_urls":["10.0.0.1:4222","10.0.0.2:4222"],"max_payload":9} \r\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    network = await Network.start(1)
    port = server.sockets[0].getsockname()[1]
    url = network.through(f"nats://user:word@127.0.0.1:{port}")
    assert url.startswith("nats://user:word@127.0.0.1:")
    assert not url.endswith(f":{port}")
    async with AsyncExitStack() as stack:
        reader, _ = await connected(stack, int(url.rpartition(":")[2]))
        assert await reader.readline() == b'INFO {"server_id":"x","max_payload":9} \r\n'
    await network.stop()
    server.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk.make(tmp_path / "image", tmp_path / "disk", size_mib=16)
    except CannotMount as error:
        pytest.skip(str(error))
    yield made
    made.remove()


def test_a_disk_that_loses_power_has_what_was_synced_and_nothing_else(disk: Disk) -> None:
    for name, synced in (("synced", True), ("unsynced", False)):
        fd = os.open(disk.path / name, os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"acked")
        if synced:
            os.fsync(fd)
            folder = os.open(disk.path, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        os.close(fd)
    disk.lose_power()
    with pytest.raises(OSError, match="Input/output error"):
        (disk.path / "after").write_bytes(b"too late")
    disk.unmount()
    disk.mount()
    assert (disk.path / "synced").read_bytes() == b"acked"
    unsynced = disk.path / "unsynced"
    assert not unsynced.exists() or unsynced.read_bytes() != b"acked"


def test_a_full_disk_takes_nothing_until_there_is_room(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space"):
        (disk.path / "more").write_bytes(bytes(65536))
    disk.make_room()
    (disk.path / "more").write_bytes(bytes(65536))


def test_a_clock_is_off_by_what_its_file_says_and_jumps_with_it(tmp_path: Path) -> None:
    offset = Offset(tmp_path / "offset")
    offset.set(3600)
    program = tmp_path / "told.py"
    program.write_text(
        "import sys, time\n"
        "for _ in sys.stdin:\n"
        "    print(time.time(), time.time_ns() / 1e9, time.monotonic(), sys.argv[1], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.clock", str(offset.path), "told", "argument"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.getcwd()))},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def told() -> tuple[float, float, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        first, second, monotonic, argument = process.stdout.readline().split()
        assert argument == "argument"
        return float(first), float(second), float(monotonic)

    try:
        before = told()
        offset.set(-3600)
        after = told()
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()
    passed_s = after[2] - before[2]
    for was, is_ in zip(before[:2], after[:2], strict=True):
        assert abs(is_ - was + 7200 - passed_s) < 1
