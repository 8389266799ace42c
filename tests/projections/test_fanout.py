"""The fan-out: who is told, with what, and from when on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from projections.fanout import FanoutWorker
from streams import subjects
from streams.codec import decode, decode_parts
from streams.memory import MemoryBus, MemoryLog
from streams.ports import Record, Signal
from tests.projections.history import STREAM, History, append


@asynccontextmanager
async def fanning_out(log: MemoryLog, bus: MemoryBus) -> AsyncIterator[list[Signal]]:
    """A running fan-out that stands at the stream's end, and what users' gateways hear."""
    heard: list[Signal] = []
    subscription = await bus.subscribe("live.user.>", heard.append)
    worker = FanoutWorker(log, bus, partition=0)
    await worker.position()  # where it begins, before the test appends
    task = asyncio.create_task(worker.run())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await subscription.close()


async def hears(heard: list[Signal], count: int) -> None:
    async with asyncio.timeout(10):
        while len(heard) < count:
            await asyncio.sleep(0.005)


async def test_each_user_concerned_is_told_and_nobody_else(log: MemoryLog) -> None:
    async with fanning_out(log, MemoryBus()) as heard:
        history = History(log)
        conversation = history.create("ann", "bob.b")
        history.post(conversation, "ann", "not for here")
        history.change(conversation, "ann", add=["cid"], remove=["bob.b"])
        await history.append()
        await hears(heard, 4)
        assert [(signal.subject, signal.headers[subjects.TYPE]) for signal in heard] == [
            (subjects.live_user("ann"), "conversation.created"),
            (subjects.live_user("bob.b"), "conversation.created"),
            (subjects.live_user("cid"), "member.added"),
            (subjects.live_user("bob.b"), "member.removed"),
        ]


async def test_a_signal_is_the_event_as_republish_would_give_it(log: MemoryLog) -> None:
    async with fanning_out(log, MemoryBus()) as heard:
        history = History(log)
        history.create("ann", "bob")
        sequence = await history.append()
        await hears(heard, 2)
    stored = [delivery async for delivery in log.read(STREAM)][-1]
    headers = heard[0].headers
    assert (headers[subjects.NATS_STREAM], headers[subjects.NATS_SEQUENCE]) == (STREAM, str(sequence))
    assert headers[subjects.NATS_SUBJECT] == stored.subject
    assert decode_parts(headers[subjects.NATS_SUBJECT], headers, heard[0].data) == decode(stored)


async def test_what_was_before_the_start_is_not_told(log: MemoryLog) -> None:
    history = History(log)
    history.create("ann", "bob")
    await history.append()
    async with fanning_out(log, MemoryBus()) as heard:
        history.create("cid", "dan")
        await history.append()
        await hears(heard, 2)
        assert {signal.subject for signal in heard} == {subjects.live_user("cid"), subjects.live_user("dan")}


async def test_an_unreadable_event_does_not_silence_those_after_it(log: MemoryLog) -> None:
    async with fanning_out(log, MemoryBus()) as heard:
        history = History(log)
        history.create("ann", "bob")
        [good] = history.records()
        await append(log, [Record(good.subject, b"\xc1", good.headers), good])
        await hears(heard, 2)
