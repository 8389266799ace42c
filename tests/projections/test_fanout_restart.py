"""The fan-out over real servers: its place outlives the process, however that ends."""

import asyncio
import multiprocessing
import os
import signal

import uvloop
from psycopg_pool import AsyncConnectionPool

from projections.fanout import READER, FanoutWorker
from streams import subjects
from streams.jetstream import JetStream
from streams.ports import Signal
from streams.topology import Topology
from tests.conftest import NatsServerFactory
from tests.projections.fanning import WAIT_S, done, expected, fanning_out, until
from tests.projections.history import STREAM, History


def fan_out(nats_url: str, postgres_url: str) -> None:
    """A process that does nothing else, until it is killed."""

    async def run() -> None:
        jetstream = await JetStream.connect(nats_url, name="to be killed")
        async with AsyncConnectionPool(postgres_url, open=False) as pool:
            await FanoutWorker(jetstream.log, jetstream.bus, pool, partition=0, limit=100).run()

    uvloop.run(run())


async def test_a_killed_fan_out_leaves_nothing_out_and_reorders_nothing(
    nats_server: NatsServerFactory, database: str, pool: AsyncConnectionPool
) -> None:
    server = await nats_server()
    jetstream = await JetStream.connect(server.url, name="test")
    log = jetstream.log
    await log.ensure(Topology())
    heard: list[Signal] = []
    subscription = await jetstream.bus.subscribe("live.user.>", heard.append)
    process = multiprocessing.get_context("spawn").Process(target=fan_out, args=(server.url, database), daemon=True)
    process.start()
    history = History(log)
    conversation = history.create("ann", "bob", "cid")
    # Its place is there when it reads: from then on every event is its own to tell.
    async with asyncio.timeout(WAIT_S):
        while await log.place(STREAM, READER) is None:
            await asyncio.sleep(0.02)
    last = await history.append()
    for number in range(40):
        for _ in range(50):
            history.post(conversation, "bob", "text", was_looked_up=True)
        if number == 20:
            await until(lambda: len(heard) > 1_000)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        last = await history.append()
    async with fanning_out(log, jetstream.bus, pool):
        await done(log, last)
        want = await expected(log, 100)
        await until(lambda: len({_place(signal) for signal in heard}) == len(want))
    assert {_place(signal) for signal in heard} == set(want)
    for user_id in ("ann", "bob", "cid"):
        newest, fresh = 0, []
        for subject, sequence in map(_place, heard):
            if subject == subjects.live_user(user_id) and sequence > newest:
                fresh.append(sequence)
                newest = sequence
        assert fresh == list(range(1, last + 1))
    await subscription.close()
    await jetstream.close()


def _place(signal: Signal) -> tuple[str, int]:
    return signal.subject, int(signal.headers[subjects.NATS_SEQUENCE])
