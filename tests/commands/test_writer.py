"""The partition writer, over the memory log and over JetStream: grouping, fencing, idempotency, unknown outcomes."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from commands.conversations import ChangeMembers, ConversationResult, CreateConversation
from commands.messages import MessageResult
from domain.conversations import RECEIPTS_MAX
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from domain.events import Event
from streams import codec
from streams.memory import MemoryLog
from streams.ports import AppendUnknown, LogUnavailable, Record
from streams.topology import Topology
from tests.commands.harness import (
    STREAM,
    FaultyLog,
    LogReceipts,
    Snapshots,
    assert_whole,
    create,
    events_of,
    message,
    post,
    texts_of,
    writing,
)


async def test_an_ack_carries_the_seq_that_the_log_holds(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        acks = [await post(writer, conversation, f"m{i}", f"text {i}") for i in range(3)]
    assert [ack.seq for ack in acks] == [1, 2, 3]
    assert [ack.version for ack in acks] == [2, 3, 4]
    assert not any(ack.duplicate for ack in acks)
    assert await texts_of(log, conversation) == ["text 0", "text 1", "text 2"]


async def test_commands_that_wait_are_appended_as_one_group(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        before = await log.last_sequence(STREAM)
        acks = await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(100)))
        appends = {
            delivery.headers["Rr-Append"]
            async for delivery in log.read(STREAM, after_sequence=before)
            if "Rr-Append" in delivery.headers
        }
    assert [ack.seq for ack in acks if isinstance(ack, MessageResult)] == list(range(1, 101))
    assert len(appends) == 1


async def test_a_retry_answers_the_first_result(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        first = await post(writer, conversation, "same")
        again = await post(writer, conversation, "same")
    assert again.duplicate
    assert (again.message_id, again.seq, again.version, again.created_at) == (
        first.message_id,
        first.seq,
        first.version,
        first.created_at,
    )
    assert await texts_of(log, conversation) == ["hi"]


async def test_two_tries_of_one_message_in_one_group_are_one_message(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        results = await asyncio.gather(*(writer.submit(message(conversation, "same")) for _ in range(5)))
    assert [result.duplicate for result in results if isinstance(result, MessageResult)] == [False] + [True] * 4
    await assert_whole(log, conversation)


async def test_another_body_under_the_same_id_is_a_conflict(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "same", "one")
        with pytest.raises(Conflict):
            await post(writer, conversation, "same", "two")


async def test_a_retry_older_than_every_receipt_in_memory_is_still_one_message(log: FaultyLog) -> None:
    receipts = LogReceipts(log)
    async with writing(log, receipts=receipts) as writer:
        conversation = await create(writer, "bob")
        first = await post(writer, conversation, "old")
        await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(RECEIPTS_MAX)))
        again = await post(writer, conversation, "old")
        assert receipts.lookups >= 1
        receipts.available = False
        with pytest.raises(Unavailable):
            await post(writer, conversation, "old")
    assert again.duplicate
    assert again.seq == first.seq
    await assert_whole(log, conversation)


async def test_without_the_receipts_of_long_ago_a_conversation_goes_on(log: FaultyLog) -> None:
    receipts = LogReceipts(log)
    async with writing(log, receipts=receipts) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "old")
        await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(RECEIPTS_MAX)))
        receipts.available = False
        names = ["old", "m1", "m2"]  # the first is looked up; the others are among the receipts, and wait behind it
        outcomes = await asyncio.gather(
            *(writer.submit(message(conversation, name)) for name in names), return_exceptions=True
        )
    assert isinstance(outcomes[0], Unavailable)
    assert [outcome.duplicate for outcome in outcomes[1:] if isinstance(outcome, MessageResult)] == [True, True]
    await assert_whole(log, conversation)


async def test_a_new_writer_continues_where_the_old_one_ended(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "m1")
    async with writing(log, clock_ms=lambda: 0) as writer:  # a clock far behind
        second = await post(writer, conversation, "m2")
        again = await post(writer, conversation, "m1")
    assert second.seq == 2
    assert again.duplicate
    await assert_whole(log, conversation)


@pytest.mark.parametrize("headers", [{}, {"Rr-At": "yesterday"}])
async def test_what_is_no_event_does_not_end_a_partition(log: FaultyLog, headers: dict[str, str]) -> None:
    garbage = Record("conv.0.77", b"\xc1", headers)
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "m1")
        await log.append(STREAM, [garbage], expected_last_sequence=await log.last_sequence(STREAM))
        assert (await post(writer, conversation, "m2")).seq == 2
    await log.append(STREAM, [garbage], expected_last_sequence=await log.last_sequence(STREAM))
    async with writing(log) as writer:
        assert (await post(writer, conversation, "m3")).seq == 3


async def test_a_conversation_evicted_from_memory_comes_back_whole(log: FaultyLog) -> None:
    async with writing(log, cache_bytes=1) as writer:
        conversations = [await create(writer, "bob") for _ in range(5)]
        for i in range(4):
            await asyncio.gather(*(writer.submit(message(c, f"m{i}")) for c in conversations))
    for conversation in conversations:
        await assert_whole(log, conversation)
        assert len(await texts_of(log, conversation)) == 4


async def test_two_writers_on_one_partition_lose_and_double_nothing(log: FaultyLog) -> None:
    async with writing(log) as first, writing(log) as second:
        conversation = await create(first, "bob")
        sends = [
            (first, second)[i % 2].submit(message(conversation, f"m{i}", actor=("alice", "bob")[i % 2]))
            for i in range(200)
        ]
        for i in range(0, 200, 10):  # and every tenth again, through the other writer
            sends.append((second, first)[i % 2].submit(message(conversation, f"m{i}", actor=("alice", "bob")[i % 2])))
            await asyncio.sleep(0)
        acks = [ack for ack in await asyncio.gather(*sends) if isinstance(ack, MessageResult)]
    assert sorted({ack.seq for ack in acks}) == list(range(1, 201))
    assert len(await texts_of(log, conversation)) == 200
    await assert_whole(log, conversation)


async def test_a_fenced_writer_sees_what_the_other_wrote_before_it_decides_again(log: FaultyLog) -> None:
    async with writing(log) as first, writing(log) as second:
        conversation = await create(first, "bob")
        await post(second, conversation, "warm", actor="bob")
        await first.submit(ChangeMembers(actor_id="alice", conversation_id=conversation, remove=["bob"]))
        with pytest.raises(NotFound):  # though `second` still holds a state in which bob is a member
            await post(second, conversation, "late", actor="bob")
    assert await texts_of(log, conversation) == ["hi"]


@pytest.mark.parametrize("landed", [True, False])
async def test_an_unknown_outcome_is_found_out_before_the_ack(log: FaultyLog, landed: bool) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        log.fail_next_append(AppendUnknown("no answer"), landed=landed)
        acks = await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(5)))
    assert [(ack.seq, ack.duplicate) for ack in acks if isinstance(ack, MessageResult)] == [
        (i, False) for i in range(1, 6)
    ]
    await assert_whole(log, conversation)


async def test_an_outcome_that_cannot_be_found_out_is_not_acked_and_the_retry_is_one_message(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        log.fail_next_append(AppendUnknown("no answer"), landed=True)
        log.fail_next_read(LogUnavailable("the tail cannot be read"))
        with pytest.raises(Unavailable):
            await post(writer, conversation, "m1")
        again = await post(writer, conversation, "m1")
    assert (again.seq, again.duplicate) == (1, True)
    await assert_whole(log, conversation)


async def test_a_command_that_fails_midway_leaves_nothing_of_itself(
    log: FaultyLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = codec.encode

    def encode_but_not_dave(event: Event, *arguments: Any, **named: Any) -> Record:
        if getattr(event, "user_id", "") == "dave":
            raise RuntimeError("a defect")
        return encode(event, *arguments, **named)

    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        monkeypatch.setattr("streams.codec.encode", encode_but_not_dave)
        add = ChangeMembers(actor_id="alice", conversation_id=conversation, add=["carol", "dave"])
        sends = [
            writer.submit(message(conversation, "m1")),
            writer.submit(add),
            writer.submit(message(conversation, "m2")),
        ]
        first, failed, second = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(failed, RuntimeError)
    assert [ack.seq for ack in (first, second) if isinstance(ack, MessageResult)] == [1, 2]
    assert [event.TOPIC for event in await events_of(log, str(conversation))] == [
        "conversation.created",
        "message.posted",
        "message.posted",
    ]
    await assert_whole(log, conversation)


async def test_a_log_that_takes_nothing_for_a_moment_costs_only_time(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        log.fail_next_append(LogUnavailable("no quorum"), landed=False)
        ack = await post(writer, conversation, "m1")
    assert ack.seq == 1
    await assert_whole(log, conversation)


async def test_a_refusal_leaves_nothing_behind(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        before = await log.last_sequence(STREAM)
        with pytest.raises(NotFound):
            await post(writer, conversation, "m1", actor="mallory")
        with pytest.raises(Invalid):
            await post(writer, conversation, "m1", "")
        with pytest.raises(Forbidden):
            await writer.submit(ChangeMembers(actor_id="bob", conversation_id=conversation, add=["carol"]))
        with pytest.raises(NotFound):
            await post(writer, 12345 << 12, "m1")
        assert await log.last_sequence(STREAM) == before
        assert (await post(writer, conversation, "m1")).seq == 1


async def test_two_users_who_open_a_direct_conversation_at_once_get_one(log: FaultyLog) -> None:
    async with writing(log) as writer:
        results = await asyncio.gather(
            writer.submit(CreateConversation(actor_id="alice", kind="direct", members=["bob"], placement=1)),
            writer.submit(CreateConversation(actor_id="bob", kind="direct", members=["alice"], placement=2)),
        )
    views = [result for result in results if isinstance(result, ConversationResult)]
    assert len({view.conversation.conversation_id for view in views}) == 1
    assert sorted(view.created for view in views) == [False, True]


async def test_a_creation_repeated_by_its_client_id_answers_the_same_conversation(log: FaultyLog) -> None:
    async with writing(log) as writer:
        first = await create(writer, "bob", client_id="ubuntu")
    async with writing(log) as writer:
        assert await create(writer, "bob", client_id="ubuntu") == first
        assert await create(writer, "bob", actor="bob", client_id="ubuntu") != first


async def test_a_full_queue_refuses_and_says_so(log: FaultyLog) -> None:
    async with writing(log, queue_max=3) as writer:
        conversation = await create(writer, "bob")
        results = await asyncio.gather(
            *(writer.submit(message(conversation, f"m{i}")) for i in range(10)), return_exceptions=True
        )
    assert sum(isinstance(result, Unavailable) for result in results) == 7
    assert len(await texts_of(log, conversation)) == 3


async def test_many_members_are_added_in_order_and_all_or_nothing(log: FaultyLog) -> None:
    users = [f"user-{i}" for i in range(1_000)]
    async with writing(log) as writer:
        conversation = await create(writer)
        changes = [ChangeMembers(actor_id="alice", conversation_id=conversation, add=users)]
        changes += [ChangeMembers(actor_id="alice", conversation_id=conversation, remove=users)]
        await asyncio.gather(*(writer.submit(change) for change in [*changes, *changes]))
        await post(writer, conversation, "m1")
    assert len(await events_of(log, str(conversation))) == 1 + 4 * 1_000 + 1
    await assert_whole(log, conversation)


async def test_a_snapshot_shortens_loading_and_changes_nothing(log: FaultyLog) -> None:
    snapshots = Snapshots()
    async with writing(log, snapshots=snapshots) as writer:
        conversation = await create(writer, "bob")
        for start in range(0, 1_200, 200):
            await asyncio.gather(*(writer.submit(message(conversation, f"m{i}")) for i in range(start, start + 200)))
    snapshot = snapshots.kept[str(conversation)]
    assert 1_000 <= snapshot.version <= 1_201
    async with writing(log, snapshots=snapshots) as writer:
        assert (await post(writer, conversation, "m1199")).duplicate
        assert (await post(writer, conversation, "m3")).duplicate
        assert (await post(writer, conversation, "next")).seq == 1_201
    await assert_whole(log, conversation)


async def test_a_snapshot_that_does_not_fit_the_log_is_ignored(log: FaultyLog) -> None:
    snapshots = Snapshots()
    other = MemoryLog()
    await other.ensure(Topology())
    async with writing(other, snapshots=snapshots) as writer:
        stranger = await create(writer, "bob")
        await asyncio.gather(*(writer.submit(message(stranger, f"m{i}")) for i in range(200)))
        foreign = await asyncio.gather(*(writer.submit(message(stranger, f"n{i}")) for i in range(900)))
        assert len(foreign) == 900
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "m1")
    snapshots.kept[str(conversation)] = snapshots.kept.pop(str(stranger))
    async with writing(log, snapshots=snapshots) as writer:
        assert (await post(writer, conversation, "m2")).seq == 2
    await assert_whole(log, conversation)


async def test_stopping_answers_everybody(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        sends = [writer.submit(message(conversation, f"m{i}")) for i in range(1_000)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    acked = [outcome for outcome in outcomes if isinstance(outcome, MessageResult)]
    assert all(isinstance(outcome, MessageResult | Unavailable) for outcome in outcomes)
    assert await texts_of(log, conversation) == ["hi"] * len(acked)


def commands(outcome: str, command: str = "PostMessage") -> float:
    labels = {"command": command, "outcome": outcome}
    return REGISTRY.get_sample_value("riverrun_commands_total", labels) or 0.0


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"riverrun_writer_{name}", {"stream": STREAM})


async def test_every_command_is_counted_once_by_what_became_of_it(log: FaultyLog) -> None:
    outcomes = ("done", "duplicate", "not_found", "unavailable")
    before = [commands(outcome) for outcome in outcomes]
    async with writing(log, queue_max=3) as writer:
        conversation = await create(writer, "bob")
        await post(writer, conversation, "same")
        await post(writer, conversation, "same")
        with pytest.raises(NotFound):
            await writer.submit(message(conversation, "m", actor="mallory"))
        log.fail_next_append(LogUnavailable("away"), landed=False)  # decided twice, and answered once
        waiting = [writer.submit(message(conversation, f"m{i}")) for i in range(4)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, Unavailable) for result in results] == [False, False, False, True]
    assert [commands(outcome) - was for outcome, was in zip(outcomes, before, strict=True)] == [4, 1, 1, 1]


async def test_what_waits_is_shown_while_the_writer_runs_and_not_after(log: FaultyLog) -> None:
    async with writing(log) as writer:
        conversation = await create(writer, "bob")
        waiting = [writer.submit(message(conversation, f"m{i}")) for i in range(3)]
        assert gauge("waiting_commands") == 3
        await asyncio.gather(*waiting)
        assert [gauge(f"{kind}_commands") for kind in ("waiting", "parked", "asides")] == [0, 0, 0]
        writer.submit(message(12345, "m"))  # of a conversation that is to be loaded
        async with asyncio.timeout(5):
            while gauge("waiting_commands"):
                await asyncio.sleep(0)
        assert gauge("parked_commands") == 1
    for name in ("waiting_commands", "parked_commands", "asides_commands", "sequence", "cache_bytes"):
        assert gauge(name) is None
