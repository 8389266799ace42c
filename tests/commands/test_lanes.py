"""Commands of one conversation are decided in their order, whatever one of them has to wait for meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from commands.writer import PartitionWriter
from domain.conversations import RECEIPTS_MAX
from domain.errors import Unavailable
from domain.messages import Receipt
from streams import subjects
from streams.ports import Log, Record, WrongSequence
from tests.commands.harness import (
    STREAM,
    FaultyLog,
    LogReceipts,
    assert_whole,
    create,
    message,
    post,
    texts_of,
    writing,
)


class HeldReceipts(LogReceipts):
    """Receipts that are found only when they may be."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.answered = asyncio.Event()

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        self.asked.set()
        await self.may_answer.wait()
        try:
            return await super().receipt(conversation_id, sender_id, client_msg_id, min_version=min_version)
        finally:
            self.answered.set()


class HeldLog(FaultyLog):
    """A log that takes appends only while it may."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.appending = asyncio.Event()
        self.may_append = asyncio.Event()
        self.may_append.set()

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        self.appending.set()
        await self.may_append.wait()
        return await super().append(stream, records, expected_last_sequence=expected_last_sequence)


async def _forgotten(writer: PartitionWriter) -> int:
    """A conversation in which only a look-up can tell whether the message `old` was posted."""
    conversation = await create(writer, "bob")
    await post(writer, conversation, "old", "old")
    await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(RECEIPTS_MAX)))
    return conversation


async def _settled(*futures: "asyncio.Future[Any]") -> list[Any]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*futures, return_exceptions=True)


async def _others_run() -> None:
    """Let what is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_waited_for_a_look_up_comes_before_what_came_during_an_append(log: FaultyLog) -> None:
    held, receipts = HeldLog(log), HeldReceipts(log)
    async with writing(held, receipts=receipts) as writer:
        conversation, other = await _forgotten(writer), await create(writer, "cid")
        waiting = [writer.submit(message(conversation, name, name)) for name in ("old", "first")]
        await receipts.asked.wait()
        held.may_append.clear()
        held.appending.clear()
        waiting.append(writer.submit(message(other, "x")))
        await held.appending.wait()
        waiting.append(writer.submit(message(conversation, "second", "second")))
        receipts.may_answer.set()
        await receipts.answered.wait()
        await _others_run()  # the look-up has ended, the append has not
        held.may_append.set()
        old, *_ = await _settled(*waiting)
        assert old.duplicate
    assert (await texts_of(log, conversation))[-2:] == ["first", "second"]
    await assert_whole(log, conversation)


@pytest.mark.parametrize("answers", [True, False])
async def test_what_is_decided_again_comes_before_what_waits_for_a_look_up(log: FaultyLog, answers: bool) -> None:
    receipts = HeldReceipts(log)
    receipts.available = answers
    async with writing(log, receipts=receipts) as writer:
        conversation = await _forgotten(writer)
        log.fail_next_append(WrongSequence("somebody else was faster"), landed=False)
        waiting = [writer.submit(message(conversation, name, name)) for name in ("first", "old", "second")]
        await receipts.asked.wait()
        async with asyncio.timeout(10):
            while writer.waiting < len(waiting):  # the append has failed, and its command waits with the others
                await asyncio.sleep(0)
        receipts.may_answer.set()
        first, old, second = await _settled(*waiting)
        assert (first.duplicate, second.duplicate) == (False, False)
        assert old.duplicate if answers else isinstance(old, Unavailable)
    assert (await texts_of(log, conversation))[-2:] == ["first", "second"]
    await assert_whole(log, conversation)


async def test_what_cannot_be_loaded_is_answered_and_the_next_is_tried_again(log: FaultyLog) -> None:
    """An event that does not decode is a defect: it holds up nobody for ever, and names itself in the log."""
    subject = subjects.aggregate(subjects.CONV, 0, "7")
    await log.append(STREAM, [Record(subject, b"\xc1", {"Rr-Type": "nonsense"})], expected_last_sequence=0)
    async with writing(log) as writer:
        for _ in range(2):
            with pytest.raises(KeyError):
                async with asyncio.timeout(10):
                    await writer.submit(message(7, "a"))
        assert writer.waiting == 0
        await post(writer, await create(writer, "bob"), "b")
