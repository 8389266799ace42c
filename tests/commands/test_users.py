"""The writer of users, over the memory log and over JetStream: the first fact, coalesced markers, blocks, snapshots."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from commands.command import Command
from commands.conversations import ConversationResult, CreateConversation
from commands.messages import MessageResult
from commands.users import (
    BlockPair,
    BlockUser,
    ChangeOwnSettings,
    DeviceResult,
    MarkerResult,
    MoveRead,
    ProfileResult,
    RegisterDevice,
    RevokeDevice,
    UnblockUser,
    UpdateProfile,
)
from commands.writer import PartitionWriter
from domain.errors import Forbidden, Invalid, NotFound, Revoked, Unavailable
from domain.events import ReadMoved
from streams import subjects
from streams.ports import AppendUnknown, LogUnavailable
from tests.commands.harness import FaultyLog, Snapshots, events_of, message, post, texts_of, wall_ms, writing

USERS = subjects.stream(subjects.USER, 0)
FAR_AHEAD_MS = 3_600_000


def move(seq: int, *, user: str = "ann", conversation: int = 7) -> MoveRead:
    return MoveRead(actor_id=user, conversation_id=conversation, seq=seq)


async def moves_of(log: FaultyLog, user: str, conversation: int = 7) -> list[ReadMoved]:
    events = await events_of(log, user, subjects.USER)
    return [event for event in events if isinstance(event, ReadMoved) and event.conversation_id == conversation]


async def topics_of(log: FaultyLog, user: str) -> list[str]:
    events = await events_of(log, user, subjects.USER)
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    return [event.TOPIC for event in events]


def assert_a_second_apart(moves: list[ReadMoved]) -> None:
    for earlier, later in pairwise(moves):
        assert later.timestamp - earlier.timestamp >= timedelta(seconds=1)
        assert later.seq > earlier.seq


async def read_seqs(writer: PartitionWriter, *moves: MoveRead) -> list[int]:
    results = await asyncio.gather(*(writer.submit(each) for each in moves))
    return [result.read_seq for result in results if isinstance(result, MarkerResult)]


# -- the first fact -----------------------------------------------------------------------------------------


async def test_a_user_begins_with_the_first_fact_about_them(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as writer:
        result = await writer.submit(UpdateProfile(actor_id="ann.b", display_name="Ann"))
        await writer.submit(UpdateProfile(actor_id="ann.b", display_name="Ann"))
    assert result == ProfileResult(display_name="Ann", avatar_url=None, attributes={})
    assert await topics_of(log, "ann.b") == ["user.created", "profile.updated"]


async def test_what_says_nothing_of_an_unknown_user_stores_nothing_and_forgets_nothing(log: FaultyLog) -> None:
    snapshots = Snapshots()
    async with writing(log, family=subjects.USER, snapshots=snapshots) as writer:
        await writer.submit(BlockUser(actor_id="bob", user_id="eve"))
        await writer.submit(UnblockUser(actor_id="ann", user_id="eve"))
        await writer.submit(move(0))
        await writer.submit(UpdateProfile(actor_id="ann"))
        with pytest.raises(NotFound):
            await writer.submit(RevokeDevice(actor_id="ann", device_id="phone"))
        with pytest.raises(Invalid):
            await writer.submit(BlockUser(actor_id="ann", user_id="ann"))
        assert await log.last_sequence(USERS) == 2
        await writer.submit(BlockUser(actor_id="bob", user_id="mia"))
        assert snapshots.loads == 0  # bob is still in memory
        results = await asyncio.gather(
            writer.submit(UnblockUser(actor_id="ann", user_id="eve")),
            writer.submit(BlockUser(actor_id="ann", user_id="eve")),
            writer.submit(ChangeOwnSettings(actor_id="ann", conversation_id=7, pinned=True)),
        )
    assert len(results) == 3
    assert await topics_of(log, "ann") == ["user.created", "user.blocked", "settings.updated"]


async def test_a_revoked_device_comes_back_only_with_a_newer_token(log: FaultyLog) -> None:
    now_ms = wall_ms()
    async with writing(log, family=subjects.USER) as writer:
        register = RegisterDevice(actor_id="ann", device_id="phone", kind="mobile", token_issued_at_ms=now_ms)
        first = await writer.submit(register)
        assert await writer.submit(register) == first
        revoked = await writer.submit(RevokeDevice(actor_id="ann", device_id="phone"))
        assert isinstance(revoked, DeviceResult)
        assert revoked.revoked_at is not None
    async with writing(log, family=subjects.USER) as writer:
        for token_issued_at_ms in (None, now_ms, 1 << 62):
            with pytest.raises(Revoked):
                await writer.submit(
                    RegisterDevice(
                        actor_id="ann", device_id="phone", kind="mobile", token_issued_at_ms=token_issued_at_ms
                    )
                )
        again = await writer.submit(
            RegisterDevice(actor_id="ann", device_id="phone", kind="web", token_issued_at_ms=now_ms + 60_000)
        )
    assert isinstance(again, DeviceResult)
    assert (again.kind, again.revoked_at) == ("web", None)
    assert await topics_of(log, "ann") == ["user.created", "device.registered", "device.revoked", "device.registered"]


# -- read markers -------------------------------------------------------------------------------------------


async def test_a_hundred_quick_moves_store_one_event_a_second_and_always_the_last(log: FaultyLog) -> None:
    seqs = list(range(1, 101))
    async with writing(log, family=subjects.USER) as writer:
        standing = await read_seqs(writer, *map(move, seqs))
        assert len(await moves_of(log, "ann")) == 2  # acked when the last one stands, and not before
        assert await read_seqs(writer, move(30)) == [100]
    assert len(standing) == 100
    assert all(read_seq >= seq for read_seq, seq in zip(standing, seqs, strict=True))
    moves = await moves_of(log, "ann")
    assert [event.seq for event in moves] == [1, 100]
    assert_a_second_apart(moves)


async def test_of_several_that_wait_the_furthest_is_stored_whatever_the_order_they_came_in(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as writer:
        standing = await read_seqs(writer, *map(move, (5, 9, 40, 12, 7, 3)))
    assert standing == [5, 40, 40, 40, 40, 5]
    assert [event.seq for event in await moves_of(log, "ann")] == [5, 40]


async def test_moves_that_go_on_are_stored_once_a_second(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as writer:
        sends: list[asyncio.Future[object]] = []
        seq = 0
        async with asyncio.timeout(20):
            while len(await moves_of(log, "ann")) < 4:
                seq += 1
                sends.append(asyncio.ensure_future(writer.submit(move(seq))))
                await asyncio.sleep(0.01)
            await asyncio.gather(*sends)
    moves = await moves_of(log, "ann")
    assert_a_second_apart(moves)
    assert moves[-1].seq == seq


async def test_markers_of_other_conversations_and_users_do_not_wait(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as writer:
        await read_seqs(writer, move(1))
        waiting = writer.submit(move(2))
        others = [move(9, conversation=8), move(9, user="bob")]
        assert await read_seqs(writer, *others) == [9, 9]
        await writer.submit(BlockUser(actor_id="ann", user_id="eve"))  # the same lane
        assert not waiting.done()
        result = await waiting
    assert result == MarkerResult(conversation_id="7", read_seq=2)


async def test_a_clock_set_back_stops_no_marker(log: FaultyLog) -> None:
    ahead_ms = FAR_AHEAD_MS
    async with writing(log, family=subjects.USER, clock_ms=lambda: wall_ms() + ahead_ms) as writer:
        await read_seqs(writer, move(1))
        ahead_ms = 0
        assert await read_seqs(writer, move(2), move(3)) == [3, 3]
    moves = await moves_of(log, "ann")
    assert [event.seq for event in moves] == [1, 3]
    assert_a_second_apart(moves)


@pytest.mark.parametrize("fault", [AppendUnknown("no answer"), LogUnavailable("no quorum")], ids=repr)
async def test_a_marker_that_the_log_does_not_take_at_once_is_acked_when_it_stands(
    log: FaultyLog, fault: AppendUnknown | LogUnavailable
) -> None:
    async with writing(log, family=subjects.USER) as writer:
        await read_seqs(writer, move(1))
        log.fail_next_append(fault, landed=isinstance(fault, AppendUnknown))
        assert await read_seqs(writer, *map(move, range(2, 20))) == [19] * 18
    assert [event.seq for event in await moves_of(log, "ann")] == [1, 19]


async def test_two_writers_store_a_marker_once_a_second_together(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as first, writing(log, family=subjects.USER) as second:
        await read_seqs(first, move(1))
        standing = await asyncio.gather(read_seqs(first, move(2), move(5)), read_seqs(second, move(3), move(4)))
    assert all(read_seq >= seq for read_seq, seq in zip([*standing[0], *standing[1]], (2, 5, 3, 4), strict=True))
    moves = await moves_of(log, "ann")
    assert moves[-1].seq == 5
    assert_a_second_apart(moves)


async def test_who_waits_for_a_marker_when_the_writer_stops_is_told(log: FaultyLog) -> None:
    async with writing(log, family=subjects.USER) as writer:
        await read_seqs(writer, move(1))
        waiting = [writer.submit(move(seq)) for seq in range(2, 6)]
        await writer.submit(BlockUser(actor_id="ann", user_id="eve"))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)


async def test_only_so_many_wait_for_markers(log: FaultyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commands.asides.ASIDES_MAX", 3)
    async with writing(log, family=subjects.USER) as writer:
        await read_seqs(writer, move(1))
        outcomes = await asyncio.gather(*map(writer.submit, map(move, range(2, 7))), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [MarkerResult] * 3 + [Unavailable] * 2
        assert await read_seqs(writer, move(4)) == [4]


async def test_a_snapshot_of_a_user_shortens_loading_and_changes_nothing(log: FaultyLog) -> None:
    snapshots = Snapshots()
    changes: list[Command] = [
        ChangeOwnSettings(actor_id="ann", conversation_id=7, pinned=not number % 2) for number in range(1_100)
    ]
    async with writing(log, family=subjects.USER, snapshots=snapshots) as writer:
        await writer.submit(BlockUser(actor_id="ann", user_id="eve"))
        await asyncio.gather(*map(writer.submit, changes))
    assert snapshots.kept["ann"].family == subjects.USER
    assert 1_000 <= snapshots.kept["ann"].version <= 1_102
    async with writing(log, family=subjects.USER, snapshots=snapshots) as writer:
        before = await log.last_sequence(USERS)
        await writer.submit(BlockUser(actor_id="ann", user_id="eve"))
        await writer.submit(ChangeOwnSettings(actor_id="ann", conversation_id=7, pinned=False))
        assert await log.last_sequence(USERS) == before
    assert snapshots.loads == 1


# -- blocks -------------------------------------------------------------------------------------------------


async def open_direct(writer: PartitionWriter, actor: str, other: str) -> ConversationResult:
    result = await writer.submit(CreateConversation(actor_id=actor, kind="direct", members=[other], placement=0))
    assert isinstance(result, ConversationResult)
    return result


@pytest.mark.parametrize("blocker", ["ann", "bob"])
async def test_a_block_refuses_opening_and_posting_to_both_in_the_same_words(log: FaultyLog, blocker: str) -> None:
    other = {"ann": "bob", "bob": "ann"}[blocker]
    refusals = set()

    async with writing(log) as writer:

        async def is_refused(command: Command) -> None:
            with pytest.raises(Forbidden) as refusal:
                await writer.submit(command)
            refusals.add((refusal.value.detail, refusal.value.field))

        await writer.submit(BlockPair(actor_id=blocker, other_id=other, blocks=True))
        for actor, member in (("ann", "bob"), ("bob", "ann")):
            await is_refused(CreateConversation(actor_id=actor, kind="direct", members=[member], placement=0))
        await writer.submit(BlockPair(actor_id=blocker, other_id=other, blocks=False))
        opened = await open_direct(writer, "ann", "bob")
        conversation = int(opened.conversation.conversation_id)
        first = await post(writer, conversation, "m1", actor="bob")

        await writer.submit(BlockPair(actor_id=blocker, other_id=other, blocks=True))
        again = await open_direct(writer, "bob", "ann")
        assert (again.created, again.conversation.conversation_id) == (False, str(conversation))
        assert await post(writer, conversation, "m1", actor="bob") == MessageResult(
            message_id=first.message_id,
            conversation_id=first.conversation_id,
            seq=first.seq,
            version=first.version,
            created_at=first.created_at,
            duplicate=True,
        )
        for actor in ("ann", "bob"):
            await is_refused(message(conversation, "m2", actor=actor))
        with pytest.raises(NotFound):
            await post(writer, conversation, "m2", actor="eve")
    async with writing(log) as writer:
        await is_refused(message(conversation, "m2", actor=other))
    assert refusals == {("you cannot write to this user", None)}
    assert await texts_of(log, conversation) == ["hi"]


async def test_when_both_block_each_takes_back_their_own(log: FaultyLog) -> None:
    async with writing(log) as writer:
        for actor, other in (("ann", "bob"), ("bob", "ann"), ("ann", "bob")):
            await writer.submit(BlockPair(actor_id=actor, other_id=other, blocks=True))
        await writer.submit(BlockPair(actor_id="ann", other_id="bob", blocks=False))
        with pytest.raises(Forbidden):
            await open_direct(writer, "ann", "bob")
        await writer.submit(BlockPair(actor_id="bob", other_id="ann", blocks=False))
        assert (await open_direct(writer, "ann", "bob")).created


async def test_a_block_does_not_reach_into_groups(log: FaultyLog) -> None:
    async with writing(log) as writer:
        await writer.submit(BlockPair(actor_id="ann", other_id="bob", blocks=True))
        group = await writer.submit(CreateConversation(actor_id="ann", kind="group", members=["bob"], placement=0))
        assert isinstance(group, ConversationResult)
        await post(writer, int(group.conversation.conversation_id), "m1", actor="bob")


async def test_taking_back_a_block_that_never_was_stores_nothing(log: FaultyLog) -> None:
    async with writing(log) as writer:
        await writer.submit(BlockPair(actor_id="ann", other_id="bob", blocks=False))
    assert await log.last_sequence(subjects.stream(subjects.CONV, 0)) == 0
