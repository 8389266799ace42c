"""A trimmed log and its archive, read as one log: over memory and over JetStream."""

from collections.abc import AsyncIterator

import pytest

from streams.archived import ArchivedLog
from streams.ports import ArchiveUnavailable, Delivery, Log, LogUnavailable, Record
from streams.topology import Topology
from tests.streams.conftest import Streams

STREAM = "CONV-0"
EVENTS = 1_300  # more than two chunks


class MemoryArchive:
    """See `streams.ports.Archive`. Has what it was given; `down` while it does not answer."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.down = False

    async def position(self, stream: str) -> int:
        if self.down:
            raise ArchiveUnavailable("down")
        return self.deliveries[-1].sequence if self.deliveries else 0

    async def last(self, stream: str, subject: str, *, up_to_sequence: int) -> Delivery | None:
        reading = self.read(stream, subject=subject, up_to_sequence=up_to_sequence)
        return ([None, *[delivery async for delivery in reading]])[-1]

    async def read(
        self, stream: str, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int
    ) -> AsyncIterator[Delivery]:
        await self.position(stream)
        for delivery in self.deliveries[after_sequence:up_to_sequence]:
            if subject in (None, delivery.subject):
                yield delivery


@pytest.fixture
async def log(streams: Streams) -> Log:
    await streams.log.ensure(Topology())
    for first in (0, 650):
        batch = [Record(f"conv.0.{number % 3}", b"%d" % number) for number in range(first + 1, first + 651)]
        await streams.log.append(STREAM, batch, expected_last_sequence=first)
    return streams.log


@pytest.fixture
async def archive(log: Log) -> MemoryArchive:
    archive = MemoryArchive()
    archive.deliveries = [delivery async for delivery in log.read(STREAM)]
    return archive


async def sequences(log: ArchivedLog, **bounds: int) -> list[int]:
    return [delivery.sequence async for delivery in log.read(STREAM, **bounds)]  # type: ignore[arg-type]


@pytest.mark.parametrize("trimmed", [0, 1, 700, EVENTS])
async def test_a_trimmed_log_is_read_whole(log: Log, archive: MemoryArchive, trimmed: int) -> None:
    await log.trim(STREAM, trimmed)
    whole = ArchivedLog(log, archive)
    assert [delivery async for delivery in whole.read(STREAM)] == archive.deliveries
    assert await sequences(whole, after_sequence=600, up_to_sequence=800) == list(range(601, 801))
    of_one = [delivery.sequence async for delivery in whole.read(STREAM, subject="conv.0.1")]
    assert of_one == list(range(1, EVENTS + 1, 3))
    assert await whole.last(STREAM, "conv.0.1") == archive.deliveries[of_one[-1] - 1]


@pytest.mark.parametrize("subject", [None, "conv.0.1"])
@pytest.mark.parametrize("step", [1, 37, 600])
async def test_trimming_under_a_reading_makes_no_hole_and_no_repeat(
    log: Log, archive: MemoryArchive, subject: str | None, step: int
) -> None:
    given = []
    async for delivery in ArchivedLog(log, archive).read(STREAM, subject=subject):
        given.append(delivery)
        if len(given) % 100 == 1:
            await log.trim(STREAM, delivery.sequence + step)  # ahead of the reader
    assert given == [one for one in archive.deliveries if subject in (None, one.subject)]


@pytest.mark.parametrize("trimmed", [0, 700, EVENTS])
async def test_a_consumer_from_before_the_trim_misses_nothing(log: Log, archive: MemoryArchive, trimmed: int) -> None:
    await log.trim(STREAM, trimmed)
    consumer = await ArchivedLog(log, archive).consume(STREAM, "reader", after_sequence=10)
    assert await consumer.pending() == EVENTS - 10
    given: list[Delivery] = []
    while len(given) < EVENTS - 10:
        given += await consumer.fetch(100, 0.2)
        await log.trim(STREAM, min(EVENTS, len(given) + 150))
    assert given == archive.deliveries[10:]
    await consumer.close()


async def test_an_archive_behind_the_trim_is_no_reason_to_skip(log: Log, archive: MemoryArchive) -> None:
    await log.trim(STREAM, 700)
    del archive.deliveries[699:]
    with pytest.raises(LogUnavailable, match="archived up to 699"):
        await sequences(ArchivedLog(log, archive))


async def test_without_the_archive_only_what_needs_it_fails(log: Log, archive: MemoryArchive) -> None:
    await log.trim(STREAM, 700)
    archive.down = True
    for broken in (ArchivedLog(log, archive), ArchivedLog(log, None)):
        assert await sequences(broken, after_sequence=700) == list(range(701, EVENTS + 1))
        assert await broken.last(STREAM, "conv.0.1") is not None
        with pytest.raises(ArchiveUnavailable):
            await sequences(broken, after_sequence=699)
