"""The proof in short, and that it would notice."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from projections.log_fold import ConversationsFold
from projections.log_fold_users import UsersFold
from streams import subjects
from streams.codec import decode
from streams.memory import MemoryBus, MemoryLog
from streams.ports import AppendUnknown, Delivery, LogUnavailable, Record
from streams.topology import Topology
from tests.proof import writing
from tests.proof.bars import Bars
from tests.proof.corpus import Corpus, Made, Plan
from tests.proof.course import STEPS, Proof, Wanted
from tests.proof.outcome import Outcome
from tests.proof.report import passed, sizes
from tests.proof.source import SHARED, Source
from tests.proof.storing import compare_stream
from tests.proof.told import Told, load, save
from tests.proof.walk import events_differ, expected, messages_differ
from tests.proof.writing import write
from tests.streams.test_archived import MemoryArchive

PLAN = Plan(messages=6_000, start=datetime(2026, 1, 1, tzinfo=UTC), months=3, seed=3)


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.of(None)


async def written(plan: Plan, source: Source) -> tuple[MemoryLog, list[Told]]:
    log, corpus = MemoryLog(MemoryBus()), Corpus(plan, source)
    await log.ensure(Topology(plan.partitions))
    await write(log, corpus, lambda *_: None)
    return log, corpus.told


@pytest.fixture
async def log(source: Source) -> MemoryLog:
    return (await written(PLAN, source))[0]


@pytest.fixture(scope="module")
def told(source: Source) -> list[Told]:
    corpus = Corpus(PLAN, source)
    for _ in corpus.events():
        pass
    return corpus.told


async def test_a_multiplied_chat_goes_through_all_tiers_and_is_as_it_was_told(tmp_path: Path) -> None:
    # A rebuild while people post has tests of its own (`tests.projections.test_rebuild_command`).
    short: dict[str, Any] = {"months": 3, "pages": 100, "kills": 2, "without": frozenset({"rebuild"})}
    wanted = Wanted(12_000, SHARED if SHARED.is_dir() else None, **short)
    outcomes = await Proof(wanted, tmp_path, Bars(quiet=True)).run()
    assert [outcome.faults for outcome in outcomes] == [[]] * (len(STEPS) - 1)
    assert passed(outcomes)
    by_step = {outcome.step: outcome for outcome in outcomes}
    assert list(by_step) == [step for step in STEPS if step != "rebuild"]
    assert by_step["write"].count == by_step["archive"].count == by_step["compare"].count == by_step["verify"].count
    assert by_step["archive"].numbers["kills"] >= 1  # both where the work is longer than the machine is fast
    assert by_step["move"].count > 0
    assert by_step["trim"].count > 0
    assert by_step["walk"].count == 100
    assert "cold" in by_step["walk"].note
    assert set(sizes(outcomes)) == {"log", "hot", "warm", "cold"}
    # Given again it is done already.
    again = await Proof(replace(wanted, until="write"), tmp_path, Bars(quiet=True)).run()
    assert [outcome.as_dict() for outcome in again] == [outcome.as_dict() for outcome in outcomes]


# -- the corpus ---------------------------------------------------------------------------------------------


def test_a_corpus_is_the_same_for_the_same_plan(source: Source) -> None:
    def made(plan: Plan) -> list[Made]:
        return list(Corpus(plan, source).events())

    assert made(PLAN) == made(PLAN)
    assert made(PLAN) != made(replace(PLAN, seed=4))


async def test_a_log_of_a_corpus_does_not_contradict_itself(log: MemoryLog, told: list[Told]) -> None:
    found: set[str] = set()
    for family, make_fold, names in (
        (subjects.CONV, ConversationsFold, ("conversations", "heads", "messages")),
        (subjects.USER, UsersFold, ("users", "markers")),
    ):
        conversations = 0
        for partition in range(PLAN.partitions):
            fold = make_fold(dict.fromkeys(names, 1 << 62))
            async for delivery in log.read(subjects.stream(family, partition)):
                event = decode(delivery)
                assert PLAN.start <= event.timestamp
                found.add(event.TOPIC)
                fold.add(delivery.sequence, event)
            assert fold.faults == []
            conversations += len(fold)
        if family == subjects.CONV:
            assert conversations == len(told)
    assert found >= {"message.posted", "member.added", "member.removed", "member.updated", "conversation.updated"}
    assert found >= {"read.moved", "profile.updated", "device.registered", "settings.updated", "user.blocked"}
    assert found >= {"conversation.created", "conversation.reserved", "pair.blocked", "user.created"}


async def test_a_writing_that_was_broken_off_goes_on_where_it_was(
    source: Source, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "TRY_FOR_S", 0.0)

    class Breaking(MemoryLog):
        """Takes so many appends."""

        left = 3

        async def append(self, stream: str, records: Any, *, expected_last_sequence: int) -> int:
            self.left -= 1
            if self.left < 0:
                raise LogUnavailable("enough")
            return await super().append(stream, records, expected_last_sequence=expected_last_sequence)

    breaking = Breaking(MemoryBus())
    await breaking.ensure(Topology(PLAN.partitions))
    with pytest.raises(LogUnavailable):
        await write(breaking, Corpus(PLAN, source), lambda *_: None)
    breaking.left = 1_000
    await write(breaking, Corpus(PLAN, source), lambda *_: None)
    for family in subjects.FAMILIES:
        for partition in range(PLAN.partitions):
            stream = subjects.stream(family, partition)
            assert await everything(breaking, stream) == await everything(log, stream) != []


async def test_an_append_whose_answer_was_lost_is_in_the_log_once(source: Source, log: MemoryLog) -> None:
    class Forgetful(MemoryLog):
        """Every third answer does not come, of half of them because nothing was stored."""

        asked = 0

        async def append(self, stream: str, records: Any, *, expected_last_sequence: int) -> int:
            self.asked += 1
            if self.asked % 6 == 0:
                raise AppendUnknown("nothing was stored")
            last = await super().append(stream, records, expected_last_sequence=expected_last_sequence)
            if self.asked % 3 == 0:
                raise AppendUnknown("all was stored")
            return last

    forgetful = Forgetful(MemoryBus())
    await forgetful.ensure(Topology(PLAN.partitions))
    await write(forgetful, Corpus(PLAN, source), lambda *_: None)
    stream = subjects.stream(subjects.CONV, 0)
    assert await everything(forgetful, stream) == await everything(log, stream)


async def everything(log: MemoryLog, stream: str) -> list[tuple[str, bytes]]:
    return [(one.subject, one.data) async for one in log.read(stream)]


def test_what_was_told_is_kept(told: list[Told], source: Source, tmp_path: Path) -> None:
    save(tmp_path / "told", told)
    assert load(tmp_path / "told", source) == told


# -- that faults are found ----------------------------------------------------------------------------------


def page_of(told: Told, wanted: range) -> dict[str, Any]:
    return {"messages": [deepcopy(expected(told, seq)) for seq in wanted], "has_more": True}


def test_a_page_of_messages_that_differs_is_noticed(told: list[Told]) -> None:
    one = max(told, key=lambda one: one.last_seq)
    wanted = range(3, 9)
    assert list(messages_differ(one, page_of(one, wanted), wanted, has_more=True)) == []
    assert list(messages_differ(one, page_of(one, wanted), wanted, has_more=False)) != []
    changes: dict[str, Any] = {
        "body": {"type": "text", "text": "x"},
        "sender_id": "x",
        "mentions": ["x"],
        "reply_to": "1",
    }
    for name, value in changes.items():
        page = page_of(one, wanted)
        page["messages"][2][name] = value
        assert list(messages_differ(one, page, wanted, has_more=True)) == ["message 5 is not what was told"]
    for numbers in ([3, 4, 5, 6, 7], [3, 4, 5, 5, 6, 7, 8], [4, 3, 5, 6, 7, 8], []):
        page = {"messages": [expected(one, seq) for seq in numbers], "has_more": True}
        assert list(messages_differ(one, page, wanted, has_more=True)) != []


def test_a_page_of_events_that_differs_is_noticed(told: list[Told]) -> None:
    one = max(told, key=lambda one: one.last_seq)
    first = one.versions[4]
    wanted = range(first, first + 1)
    event = {"version": first, "type": "message.posted", "data": expected(one, 5)}
    assert list(events_differ(one, {"events": [event]}, wanted)) == []
    for wrong in ({"type": "member.added"}, {"data": expected(one, 6)}, {"version": first + 1}):
        assert list(events_differ(one, {"events": [event | wrong]}, wanted)) != []
    assert list(events_differ(one, {"events": []}, wanted)) != []


async def flipped(deliveries: list[Delivery]) -> list[Delivery]:
    data = bytearray(deliveries[7].data)
    data[3] ^= 1
    return [*deliveries[:7], msgspec.structs.replace(deliveries[7], data=bytes(data)), *deliveries[8:]]


async def test_an_archive_that_differs_is_noticed() -> None:
    log = MemoryLog(MemoryBus())
    await log.ensure(Topology())
    await log.append("CONV-0", [Record("conv.0.1", b"event %d" % n) for n in range(20)], expected_last_sequence=0)
    logged = [delivery async for delivery in log.read("CONV-0")]

    async def faults(archived: list[Delivery]) -> int:
        archive, outcome = MemoryArchive(), Outcome("compare")
        archive.deliveries = archived
        await compare_stream(log, archive, "CONV-0", 20, outcome, lambda _: None)
        return outcome.fault_count

    assert await faults(logged) == 0
    assert await faults(await flipped(logged)) == 1
    assert await faults(logged[:-1]) == 1
    assert await faults([*logged[:5], *logged[6:]]) >= 1
    assert await faults([*logged[:5], logged[5], *logged[5:]]) >= 1
    assert await faults([*logged[:5], msgspec.structs.replace(logged[5], headers={"Rr-Type": "x"}), *logged[6:]]) == 1
