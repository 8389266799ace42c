"""What only real servers show: crashes, broken connections, half a batch, racing deployments."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.subscription import Subscription
from prometheus_client import REGISTRY

from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer, nats_server_binary
from streams.jetstream import JetStream, check_sync_always, frames, publisher
from streams.jetstream.api import call
from streams.jetstream.connection import Connection
from streams.jetstream.ensure import config_of
from streams.ports import AppendUnknown, Consumer, LogUnavailable, NoReply, NoResponder, Record, Signal, WrongSequence
from streams.topology import Topology, TopologyMismatch
from tests.conftest import NatsServerFactory
from tests.streams.conftest import freeze, until

STREAM = "CONV-0"


@pytest.fixture
async def server(nats_server: NatsServerFactory) -> NatsServer:
    """A server of the test's own, started again when it is killed."""
    return await nats_server()


@pytest.fixture
async def connected(server: NatsServer) -> AsyncIterator[JetStream]:
    jetstream = await JetStream.connect(server.url, name="test")
    await jetstream.log.ensure(Topology())
    yield jetstream
    await jetstream.close()


def records(first: int, count: int) -> list[Record]:
    return [Record("conv.0.1", str(number).encode(), {"Rr-Type": "x"}) for number in range(first, first + count)]


async def stored(jetstream: JetStream) -> list[int]:
    return [int(delivery.data) async for delivery in jetstream.log.read(STREAM)]


async def crash(server: NatsServer, jetstream: JetStream) -> None:
    """Kill -9, and return when it is felt. The server is started again in a moment."""
    assert server.child.pid is not None
    os.kill(server.child.pid, signal.SIGKILL)
    await until(lambda: not jetstream.connected)


async def appended(jetstream: JetStream, batch: list[Record], *, expected: int) -> int:
    """Append when the log is there again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await jetstream.log.append(STREAM, batch, expected_last_sequence=expected)
            except LogUnavailable:
                await asyncio.sleep(0.02)


async def test_what_was_acked_survives_kill_9(server: NatsServer, connected: JetStream) -> None:
    last = 0
    for size in (1, 200, 1, 50):
        last = await connected.log.append(STREAM, records(last + 1, size), expected_last_sequence=last)
    await crash(server, connected)
    last = await appended(connected, records(last + 1, 3), expected=last)
    await crash(server, connected)
    last = await appended(connected, records(last + 1, 1), expected=last)
    assert await stored(connected) == list(range(1, last + 1))


async def test_a_consumer_goes_on_after_kill_9_without_a_hole_or_a_double(
    server: NatsServer, connected: JetStream
) -> None:
    last = await connected.log.append(STREAM, records(1, 1000), expected_last_sequence=0)
    consumer = await connected.log.consume(STREAM, "reader", after_sequence=0)
    seen = [int(delivery.data) for delivery in await consumer.fetch(300, 5)]
    await consumer.ack(seen[-1])
    await crash(server, connected)
    last = await appended(connected, records(last + 1, 5), expected=last)
    await read_on(consumer, seen, last)
    assert seen == list(range(1, last + 1))
    await consumer.close()


async def read_on(consumer: Consumer, seen: list[int], last: int) -> None:
    async with asyncio.timeout(20):
        while len(seen) < last:
            try:
                seen += [int(delivery.data) for delivery in await consumer.fetch(300, 1)]
            except LogUnavailable:
                continue


async def test_fetching_while_the_log_is_away_says_so(server: NatsServer, connected: JetStream) -> None:
    consumer = await connected.log.consume(STREAM, "reader", after_sequence=0)
    await server.child.stop()
    await until(lambda: not connected.connected)
    with pytest.raises(LogUnavailable):
        await consumer.fetch(10, 0.05)
    await consumer.close()


async def test_a_consumer_deleted_behind_its_back_goes_on_where_it_was(nats: NatsServer, jetstream: JetStream) -> None:
    await jetstream.log.ensure(Topology())
    await jetstream.log.append(STREAM, records(1, 10), expected_last_sequence=0)
    consumer = await jetstream.log.consume(STREAM, "reader", after_sequence=0)
    seen: list[int] = []
    await read_on(consumer, seen, 10)
    connection = await Connection.open(nats.url, name="vandal", timeout_s=5)
    await call(connection, f"CONSUMER.DELETE.{STREAM}.reader-0")
    await connection.close()
    await jetstream.log.append(STREAM, records(11, 10), expected_last_sequence=10)
    await read_on(consumer, seen, 20)
    assert seen == list(range(1, 21))
    await consumer.close()


async def test_holes_in_the_stream_are_passed_over(nats: NatsServer, jetstream: JetStream) -> None:
    await jetstream.log.ensure(Topology())
    batch = [Record(f"conv.0.{number % 3}", str(number).encode()) for number in range(1, 31)]
    await jetstream.log.append(STREAM, batch, expected_last_sequence=0)
    connection = await Connection.open(nats.url, name="purger", timeout_s=5)
    await call(connection, f"STREAM.PURGE.{STREAM}", {"filter": "conv.0.1"})
    await call(connection, f"STREAM.PURGE.{STREAM}", {"filter": "conv.0.0"})
    await connection.close()
    left = [number for number in range(1, 31) if number % 3 == 2]
    assert await stored(jetstream) == left
    assert [int(d.data) async for d in jetstream.log.read(STREAM, after_sequence=6, up_to_sequence=12)] == [8, 11]
    consumer = await jetstream.log.consume(STREAM, "reader", after_sequence=6)
    seen: list[int] = []
    await read_on(consumer, seen, 8)
    assert seen == left[2:]
    await consumer.close()
    assert await jetstream.log.append(STREAM, records(31, 1), expected_last_sequence=30) == 31


async def test_an_append_while_disconnected_is_refused_and_never_lands(
    server: NatsServer, connected: JetStream
) -> None:
    await connected.log.append(STREAM, records(1, 1), expected_last_sequence=0)
    await crash(server, connected)
    with pytest.raises(LogUnavailable):
        await connected.log.append(STREAM, records(100, 1), expected_last_sequence=1)
    with pytest.raises(LogUnavailable):
        await connected.log.append(STREAM, records(100, 5), expected_last_sequence=1)
    with pytest.raises(NoResponder):
        await connected.bus.request("cmd.x", b"", timeout_s=5)
    await appended(connected, records(2, 1), expected=1)
    assert await stored(connected) == [1, 2]


@pytest.mark.parametrize("size", [1, 10])
async def test_an_append_without_an_answer_is_unknown_and_is_found_later(
    server: NatsServer, connected: JetStream, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(publisher, "APPEND_S", 0.2)
    assert server.child.pid is not None
    await freeze(server)
    try:
        with pytest.raises(AppendUnknown):
            await connected.log.append(STREAM, records(1, size), expected_last_sequence=0)
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    monkeypatch.undo()
    with pytest.raises(WrongSequence):  # the first try came through in the end
        await connected.log.append(STREAM, records(1, size), expected_last_sequence=0)
    assert await stored(connected) == list(range(1, size + 1))


async def test_an_append_under_way_when_the_connection_breaks_is_unknown_at_once(
    server: NatsServer, connected: JetStream
) -> None:
    pid = server.child.pid
    assert pid is not None
    await freeze(server)
    appending = asyncio.create_task(connected.log.append(STREAM, records(1, 3), expected_last_sequence=0))
    asking = asyncio.create_task(connected.bus.request("cmd.x", b"", timeout_s=30))
    await asyncio.sleep(0)
    started_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(AppendUnknown):
        await appending
    with pytest.raises(NoReply):
        await asking
    assert time.monotonic() - started_s < publisher.APPEND_S
    await appended(connected, records(1, 3), expected=0)
    assert await stored(connected) == [1, 2, 3]


async def test_half_a_batch_is_nothing(nats: NatsServer, jetstream: JetStream) -> None:
    await jetstream.log.ensure(Topology())
    connection = await Connection.open(nats.url, name="dying", timeout_s=5)
    lines = "Nats-Batch-Id: half\r\nNats-Batch-Sequence: {}\r\n"
    for number in range(1, 4):
        connection.tell("conv.0.9", b"half", lines=lines.format(number))
    await connection.flush()
    await connection.close()
    assert await jetstream.log.append(STREAM, records(1, 5), expected_last_sequence=0) == 5
    assert await stored(jetstream) == [1, 2, 3, 4, 5]


async def test_of_two_writers_on_two_connections_one_is_fenced(nats: NatsServer, jetstream: JetStream) -> None:
    await jetstream.log.ensure(Topology())
    other = await JetStream.connect(nats.url, name="other")
    conflicts = last = 0
    for round_ in range(20):
        size = 1 + round_ % 3
        outcomes = await asyncio.gather(
            *(
                one.log.append(STREAM, records(last + 1, size), expected_last_sequence=last)
                for one in (jetstream, other)
            ),
            return_exceptions=True,
        )
        conflicts += sum(isinstance(outcome, WrongSequence) for outcome in outcomes)
        last += size
        assert last in outcomes
    assert conflicts == 20
    assert await stored(jetstream) == list(range(1, last + 1))
    await other.close()


def reconnects() -> float:
    return REGISTRY.get_sample_value("riverrun_nats_reconnects_total") or 0.0


async def test_loss_is_told_when_the_connection_breaks_and_signals_flow_after_it(
    server: NatsServer, connected: JetStream
) -> None:
    reasons: list[str] = []
    heard: list[bytes] = []
    before = reconnects()
    connected.bus.on_loss(reasons.append)
    await connected.bus.subscribe("live.user.ann", lambda signal: heard.append(signal.data))
    await crash(server, connected)
    await until(lambda: reasons != [])
    await until(lambda: connected.connected)
    await connected.bus.publish("live.user.ann", b"again")
    await until(lambda: heard == [b"again"])
    assert len(reasons) == 1
    await until(lambda: reconnects() == before + 1)


async def test_subscriptions_that_have_ended_leave_nothing_for_the_collector(jetstream: JetStream) -> None:
    def living() -> int:
        return sum(isinstance(found, Subscription) for found in gc.get_objects())

    gc.collect()
    before = living()
    gc.disable()
    try:
        for _ in range(5):
            heard: list[Signal] = []
            subscription = await jetstream.bus.subscribe("live.conv.0.1", heard.append)
            await jetstream.bus.publish("live.conv.0.1", b"here")
            await until(lambda heard=heard: bool(heard))  # type: ignore[misc]
            await subscription.close()
            del subscription
        assert living() == before
    finally:
        gc.enable()


async def test_loss_is_not_told_for_closing(nats: NatsServer) -> None:
    reasons: list[str] = []
    jetstream = await JetStream.connect(nats.url, name="closing")
    jetstream.bus.on_loss(reasons.append)
    await jetstream.close()
    assert reasons == []
    assert not jetstream.connected


async def test_nodes_are_known_again_after_the_server_lost_its_memory(server: NatsServer, connected: JetStream) -> None:
    seen: list[dict[str, bytes]] = []
    watch = await connected.nodes.watch(seen.append)
    await connected.nodes.announce("a", b"")
    await crash(server, connected)
    await until(lambda: connected.connected)
    async with asyncio.timeout(10):
        while seen[-1] != {"b": b""}:
            try:
                await connected.nodes.announce("b", b"")
            except LogUnavailable:
                continue
            await asyncio.sleep(0.05)
    await watch.close()


async def test_deployments_racing_with_different_partitions_leave_one(nats: NatsServer, jetstream: JetStream) -> None:
    other = await JetStream.connect(nats.url, name="other")
    outcomes = await asyncio.gather(
        jetstream.log.ensure(Topology(partitions=2)), other.log.ensure(Topology(partitions=4)), return_exceptions=True
    )
    assert sorted(map(type, outcomes), key=str) == sorted([TopologyMismatch, type(None)], key=str)
    winner = 2 if outcomes[0] is None else 4
    await other.log.ensure(Topology(partitions=winner))
    with pytest.raises(LogUnavailable):
        await other.log.last_sequence(f"CONV-{winner}")
    await other.close()


async def test_a_stream_that_lags_behind_the_topology_is_brought_up_to_it(
    nats: NatsServer, jetstream: JetStream
) -> None:
    old = config_of(Topology().streams()[0], 1)
    del old["republish"]
    old["allow_direct"] = False
    connection = await Connection.open(nats.url, name="old", timeout_s=5)
    await call(connection, f"STREAM.CREATE.{STREAM}", old)
    await jetstream.log.ensure(Topology())
    config = (await call(connection, f"STREAM.INFO.{STREAM}"))["config"]
    assert config["republish"] == {"src": "conv.0.*", "dest": "live.conv.{{wildcard(1)}}"}
    assert config["allow_direct"] is True
    await connection.close()


async def test_a_wrong_password_and_an_absent_server_are_said_in_time(nats: NatsServer) -> None:
    scheme, _, address = nats.url.rpartition("@")
    for url in (f"{scheme}x@{address}", f"nats://127.0.0.1:{free_port()}"):
        with pytest.raises(LogUnavailable):
            await JetStream.connect(url, name="test", timeout_s=0.5)


async def test_sync_always_is_read_from_the_server(nats: NatsServer, tmp_path: Path) -> None:
    assert await check_sync_always(nats.monitoring_url)
    ports = [str(free_port()) for _ in range(2)]
    careless = await asyncio.create_subprocess_exec(
        *(nats_server_binary(), "-a", "127.0.0.1", "-p", ports[0], "-m", ports[1], "-js", "-sd", str(tmp_path)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        jetstream = await JetStream.connect(f"nats://127.0.0.1:{ports[0]}", name="test")
        assert not await check_sync_always(f"http://127.0.0.1:{ports[1]}")
        await jetstream.close()
    finally:
        careless.terminate()
        await careless.wait()


def test_a_header_block_reads_back() -> None:
    headers = {"Rr-Type": "message.posted", "Rr-Actor": "å: b"}
    lines = frames.header_lines(headers)
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    assert frames.headers_of(block) == frames.own_headers_of(block) == headers
    batch = f"NATS/1.0\r\n{lines}Nats-Batch-Id: 1\r\nNats-Batch-Sequence: 2\r\n\r\n".encode()
    assert frames.headers_of(batch) == {**headers, "Nats-Batch-Id": "1", "Nats-Batch-Sequence": "2"}
    assert frames.own_headers_of(batch) == headers
    assert frames.own_headers_of(b"NATS/1.0\r\nNats-Batch-Id: 1\r\n\r\n") == {}
    assert frames.headers_of(b"NATS/1.0\r\nA:b\r\nC:  d\r\n\r\n") == {"A": "b", "C": "d"}
    assert frames.headers_of(b"NATS/1.0 503\r\n\r\n") == {"Status": "503"}
    assert frames.headers_of(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 8\r\n\r\n") == {
        "Status": "408",
        "Nats-Pending-Messages": "8",
    }
    assert frames.headers_of(b"") == frames.own_headers_of(b"") == {}
