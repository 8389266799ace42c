"""Receipts that an aggregate has forgotten, while the read model does not answer: over the memory log and JetStream."""

import asyncio

import pytest

from commands import receipts
from commands.receipts import Receipts
from domain.conversations import RECEIPTS_MAX
from domain.errors import Unavailable
from domain.messages import Receipt
from streams.ports import LogUnavailable
from tests.commands.harness import STREAM, FaultyLog, LogReceipts, assert_whole, create, message, post, writing


class Silent:
    """A read model that never answers."""

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def down(log: FaultyLog) -> LogReceipts:
    """A read model that says that it cannot."""
    read_model = LogReceipts(log)
    read_model.available = False
    return read_model


async def test_a_retry_from_long_ago_is_found_in_the_log(log: FaultyLog) -> None:
    async with writing(log, receipts=Receipts(down(log), log, partition=0)) as writer:
        conversation = await create(writer, "bob")
        first = await post(writer, conversation, "old")
        await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(RECEIPTS_MAX)))
        again = await post(writer, conversation, "old")
    assert (again.duplicate, again.seq, again.message_id) == (True, first.seq, first.message_id)
    await assert_whole(log, conversation)


async def test_the_log_says_who_sent_what_up_to_a_version(log: FaultyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "READ_MODEL_S", 0.01)
    looked_up = Receipts(Silent(), log, partition=0)
    async with writing(log) as writer:
        conversation, other = await create(writer, "bob"), await create(writer, "bob")
        await post(writer, other, "theirs")
        acks = [await post(writer, conversation, f"m{i}", actor=("alice", "bob")[i % 2]) for i in range(4)]

    async def found(sender_id: str, client_msg_id: str, *, min_version: int = 5) -> int | None:
        receipt = await looked_up.receipt(conversation, sender_id, client_msg_id, min_version=min_version)
        return None if receipt is None else receipt.seq

    assert [ack.version for ack in acks] == [2, 3, 4, 5]
    assert [await found(("alice", "bob")[i % 2], f"m{i}") for i in range(4)] == [1, 2, 3, 4]
    assert await found("bob", "m0") is None
    assert await found("alice", "theirs") is None
    assert await found("alice", "fresh", min_version=3) is None
    with pytest.raises(Unavailable):  # the log does not reach so far: nobody can say
        await found("alice", "fresh", min_version=6)


async def test_a_long_conversation_is_not_read_for_a_receipt(log: FaultyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "READ_MAX", 2)
    looked_up = Receipts(down(log), log, partition=0)
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "m0")
        await post(writer, conversation, "m1")
    assert await looked_up.receipt(conversation, "alice", "fresh", min_version=2) is None
    with pytest.raises(Unavailable, match="a long one"):
        await looked_up.receipt(conversation, "alice", "m0", min_version=3)


async def test_a_log_that_fails_as_well_denies_nothing(log: FaultyLog) -> None:
    looked_up = Receipts(down(log), log, partition=0)
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "m0")
    log.fail_next_read(LogUnavailable("no quorum"))
    with pytest.raises(LogUnavailable):
        await looked_up.receipt(conversation, "alice", "fresh", min_version=2)
    assert await log.last_sequence(STREAM) == 2
