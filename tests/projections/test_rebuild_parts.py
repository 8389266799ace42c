"""What a rebuild is made of: slices of the log, reading that is never short, and what is said of how far it is."""

from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from domain.ids import compose, creation_key, direct_key, partition_of, slot_of, user_slot
from projections.rebuild import source
from projections.rebuild.slices import SLICES, portions_of
from projections.rebuild.source import ahead, batches
from runtime.cli.progress import Lines
from streams import subjects
from streams.memory import MemoryLog
from streams.ports import Delivery, LogUnavailable
from tests.projections.history import STREAM, chat

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)


@pytest.mark.parametrize(("partitions", "parts"), [(1, 1), (1, 4), (4, 2)])
def test_every_subject_is_in_one_slice_of_one_portion_of_its_partition(partitions: int, parts: int) -> None:
    found = set()
    for number in range(200):
        conversation, user = compose(NOW_MS, number * 5, 0), f"u.ser{number}"
        for family, id_, slot in (
            (subjects.CONV, str(conversation), slot_of(conversation)),
            (subjects.CONV, direct_key(user, "ann").value, direct_key(user, "ann").slot),
            (subjects.CONV, creation_key(user, "x").value, creation_key(user, "x").slot),
            (subjects.USER, user, user_slot(user)),
        ):
            partition = partition_of(slot, partitions)
            subject = subjects.aggregate(family, partition, id_)
            of_it = [one for one in portions_of(family, partitions, parts) if one.partition == partition]
            assert len(of_it) == parts
            [one] = [one for one in of_it if one.has(subject)]
            delivery = Delivery(one.stream, 1, subject, b"", {}, NOW)
            [(slice_, here)] = one.divided([delivery]).items()
            assert (slice_ in one.numbers, slice_ % partitions, here) == (True, partition, [delivery])
            found.add((family, slice_))
    assert len(found) == 2 * partitions * parts * SLICES


async def read(log: MemoryLog, up_to: int) -> list[list[Delivery]]:
    async with aclosing(ahead(batches(log, STREAM, up_to_sequence=up_to))) as reading:
        return [batch async for batch in reading]


async def test_batches_are_bounded_in_events_and_in_bytes(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    last = await chat(log, 20).append()
    monkeypatch.setattr(source, "BATCH_EVENTS", 8)
    found = await read(log, last)
    assert [len(batch) for batch in found] == [8, 8, 5]
    assert [delivery.sequence for batch in found for delivery in batch] == list(range(1, last + 1))
    monkeypatch.setattr(source, "BATCH_BYTES", 1)
    assert [len(batch) for batch in await read(log, last)] == [1] * last


async def test_a_reading_that_stays_short_is_no_end(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    last = await chat(log, 3).append()
    monkeypatch.setattr(source, "SHORT_S", 0.0)
    with pytest.raises(LogUnavailable, match=f"could be read up to {last} only, and reaches {last + 1}"):
        await read(log, last + 1)


def test_lines_say_how_far_how_fast_and_how_long() -> None:
    said: list[str] = []
    now_s = 100.0
    lines = Lines(said.append, lambda: now_s)
    for after_s, step in (
        (0.0, ("loading", 0, 4_000)),
        (1.0, ("loading", 500, 4_000)),  # too soon after the last one
        (1.0, ("loading", 1_000, 4_000)),
        (0.5, ("loading", 4_000, 4_000)),  # the end is always told
        (0.0, ("indexing", 0, 0)),
    ):
        now_s += after_s
        lines.tell(*step)
    assert said == [
        "loading: 0 of 4,000, 0%\n",
        "loading: 1,000 of 4,000, 25%, 500/s, 6 s left\n",
        "loading: 4,000 of 4,000, 100%, 1,600/s, 0 s left\n",
        "indexing\n",
    ]
