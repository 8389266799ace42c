"""Signals: brought to the members and to nobody else, and only where there are few."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from domain.events import Event, PairBlocked, PairUnblocked, ReadMoved
from domain.fanout import SIGNAL_MEMBERS_MAX
from domain.ids import pair_key
from projections.fanout import FanoutWorker
from projections.signals import RECEIPT, TYPING, ReceiptsWorker, SignalForwarder
from streams import subjects
from streams.codec import Metadata, encode
from streams.memory import MemoryBus, MemoryLog
from streams.ports import Signal
from tests.projections.fanning import done, stand, until
from tests.projections.history import STREAM, History, append

USER_STREAM = subjects.stream(subjects.USER, 0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Signalling:
    log: MemoryLog
    bus: MemoryBus
    heard: list[Signal]

    async def signal(self, conversation: Conversation, sender: str, kind: str = TYPING, data: bytes = b"{}") -> None:
        headers = {subjects.SIGNAL: kind, subjects.SENDER: sender}
        await self.bus.publish(subjects.signal_conversation(conversation.id), data, headers)

    async def settled(self, conversation: Conversation, sender: str) -> None:
        """Wait until all signals so far are forwarded or refused: one that is sure to be forwarded comes last."""
        count = len(self.ends())
        await self.signal(conversation, sender, TYPING, b"end")
        await until(lambda: len(self.ends()) > count)

    def ends(self) -> list[Signal]:
        return [signal for signal in self.heard if signal.data == b"end"]

    def told(self) -> list[str]:
        """Under which subjects signals came, those of `settled` apart."""
        return [signal.subject for signal in self.heard if signal.data != b"end"]

    async def pair(self, event: type[Event], actor: str, other: str) -> None:
        key = pair_key(actor, other)
        happened = event(originator_id=key.value, originator_version=2, timestamp=NOW, actor_id=actor)
        await done(self.log, await append(self.log, [encode(happened, f"conv.0.{key.value}", Metadata())]))

    async def read(self, user_id: str, conversation: Conversation, seq: int) -> None:
        moved = ReadMoved(
            originator_id=user_id,
            originator_version=2,
            timestamp=NOW,
            actor_id=user_id,
            conversation_id=int(conversation.id),
            seq=seq,
        )
        record = encode(moved, subjects.aggregate(subjects.USER, 0, user_id), Metadata())
        last = await self.log.last_sequence(USER_STREAM)
        await self.log.append(USER_STREAM, [record], expected_last_sequence=last)


@asynccontextmanager
async def signalling(log: MemoryLog, pool: AsyncConnectionPool, *, limit: int = 100) -> AsyncIterator[Signalling]:
    """A process that fans out, and all signals that users' gateways hear."""
    bus = MemoryBus()
    heard: list[Signal] = []

    def hear(signal: Signal) -> None:
        if subjects.SIGNAL in signal.headers:
            heard.append(signal)

    await bus.subscribe("live.>", hear)
    worker = FanoutWorker(log, bus, pool, partition=0, limit=limit)
    receipts = ReceiptsWorker(log, bus, partition=0)
    await worker.position()
    await receipts.position()
    forwarder = SignalForwarder(bus, {0: worker}, partitions=1, limit=limit)
    tasks = [asyncio.create_task(service.run()) for service in (worker, receipts, forwarder)]
    await asyncio.sleep(0)  # it has subscribed
    try:
        yield Signalling(log, bus, heard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_typing_reaches_every_member_as_it_came(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with signalling(log, pool) as at:
        history = History(log)
        group = history.create("ann", "bob.b", "cid")
        await done(log, await history.append())
        await at.signal(group, "bob.b", TYPING, b'{"signal":{"type":"typing"}}')
        await until(lambda: len(at.heard) == 3)
        assert sorted(at.told()) == ["live.user.ann", "live.user.bob%2Eb", "live.user.cid"]
        assert {signal.data for signal in at.heard} == {b'{"signal":{"type":"typing"}}'}
        assert dict(at.heard[0].headers) == {subjects.SIGNAL: "typing", subjects.SENDER: "bob.b"}


async def test_above_the_limit_a_signal_goes_to_the_conversation_once(
    log: MemoryLog, pool: AsyncConnectionPool
) -> None:
    async with signalling(log, pool, limit=2) as at:
        history = History(log)
        group = history.create("ann", "bob", "cid")
        await done(log, await history.append())
        await at.signal(group, "bob")
        await at.settled(group, "ann")
        assert at.told() == [f"live.conv.{group.id}"]


async def test_strangers_unknown_kinds_and_unknown_conversations_are_heard_by_nobody(
    log: MemoryLog, pool: AsyncConnectionPool
) -> None:
    async with signalling(log, pool) as at:
        history = History(log)
        group = history.create("ann", "bob")
        history.change(group, "ann", add=["eve"])
        history.change(group, "ann", remove=["eve"])
        await done(log, await history.append())
        await at.signal(group, "eve")
        await at.signal(group, "")
        await at.signal(group, "ann", "presence")
        await at.bus.publish("signal.conv.7", b"{}", {subjects.SIGNAL: TYPING, subjects.SENDER: "ann"})
        await at.bus.publish("signal.conv.x", b"{}", {subjects.SIGNAL: TYPING, subjects.SENDER: "ann"})
        await at.bus.publish(subjects.signal_conversation(group.id), b"{}")
        await at.settled(group, "ann")
        assert at.told() == []


async def test_from_a_hundred_members_on_there_are_no_signals(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with signalling(log, pool) as at:
        history = History(log)
        small = history.create("ann", *(f"u{number}" for number in range(SIGNAL_MEMBERS_MAX - 2)))
        large = history.create("ann", *(f"u{number}" for number in range(SIGNAL_MEMBERS_MAX - 1)))
        await done(log, await history.append())
        for kind in (TYPING, RECEIPT):
            await at.signal(large, "ann", kind)
            await at.signal(small, "ann", kind)
        await at.settled(small, "ann")
        assert len(at.told()) == 2 * (SIGNAL_MEMBERS_MAX - 1) - 1


async def test_members_not_in_memory_are_asked_of_the_read_model(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    group = history.create("ann", "bob")
    await stand(pool, log, await history.append())
    async with signalling(log, pool) as at:
        await at.signal(group, "bob")
        await until(lambda: len(at.heard) == 2)
        assert sorted(at.told()) == ["live.user.ann", "live.user.bob"]


async def test_a_moved_marker_is_told_to_the_other_members(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with signalling(log, pool) as at:
        history = History(log)
        group = history.create("ann", "bob", "c.id")
        await done(log, await history.append())
        await at.read("c.id", group, 7)
        await until(lambda: len(at.heard) == 2)
        assert sorted(at.told()) == ["live.user.ann", "live.user.bob"]
        assert json.loads(at.heard[0].data) == {
            "signal": {"type": "receipt", "conversation_id": group.id, "user_id": "c.id", "read_seq": 7}
        }
        assert at.heard[0].headers[subjects.SIGNAL] == RECEIPT


@pytest.mark.parametrize("blocker", ["ann", "bob"])
async def test_between_two_of_whom_one_blocked_the_other_nothing_is_signalled(
    log: MemoryLog, pool: AsyncConnectionPool, blocker: str
) -> None:
    other = "bob" if blocker == "ann" else "ann"
    async with signalling(log, pool) as at:
        history = History(log)
        direct = history.create("ann", "bob", kind="direct")
        group = history.create("ann", "bob", "cid")
        await done(log, await history.append())
        await at.signal(direct, "ann")
        await until(lambda: len(at.heard) == 2)
        await at.pair(PairBlocked, blocker, other)
        await at.signal(direct, "ann")
        await at.signal(direct, "bob", RECEIPT)
        await at.settled(group, "ann")
        assert len(at.told()) == 2
        await at.pair(PairBlocked, other, blocker)
        await at.pair(PairUnblocked, blocker, other)
        await at.signal(direct, "ann")
        await at.settled(group, "ann")
        assert len(at.told()) == 2  # the other one still has it blocked
        await at.pair(PairUnblocked, other, blocker)
        await at.signal(direct, "bob")
        await at.settled(group, "ann")
        assert len(at.told()) == 4


async def test_a_signal_that_cannot_be_forwarded_is_dropped_and_the_next_one_is_not(log: MemoryLog) -> None:
    nowhere = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/nothing", min_size=0, max_size=1, open=False)
    history = History(log)
    unknown = history.create("ann", "bob")
    await history.append()
    async with nowhere, signalling(log, nowhere) as at:
        known = history.create("ann", "cid")
        await done(log, await history.append())
        await at.signal(unknown, "ann")
        await at.settled(known, "ann")
        assert at.told() == []
        assert await log.last_sequence(STREAM) == 2
