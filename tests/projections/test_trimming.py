"""What the log may forget: only what is archived, applied, told and old."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg_pool import AsyncConnectionPool

from projections.tiers import trimming
from projections.tiers.trimming import Trim, plan, trim
from streams.memory import MemoryLog
from streams.ports import Delivery, Record
from streams.topology import Topology
from tests.projections.history import STREAM, USERS

EVENTS = 20


class TrimmedLog(MemoryLog):
    def __init__(self) -> None:
        super().__init__()
        self.trimmed: list[tuple[str, int]] = []

    async def trim(self, stream: str, up_to_sequence: int) -> None:
        self.trimmed.append((stream, up_to_sequence))


class Archived:
    """An archive that has a stream up to somewhere."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence

    async def position(self, stream: str) -> int:
        return self.sequence if stream == STREAM else 0

    async def read(
        self, stream: str, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int
    ) -> AsyncIterator[Delivery]:
        assert not up_to_sequence, "what is to be forgotten is asked of the log"
        for delivery in list[Delivery]():
            yield delivery


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "KEEP_EVENTS", 2)


async def planned(
    log: MemoryLog, pool: AsyncConnectionPool, *, archived: int, applied: dict[str, int], keep: timedelta
) -> dict[str, Trim]:
    for number in range(EVENTS):
        await log.append(STREAM, [Record("conv.0.1", b"x")], expected_last_sequence=number)
    async with pool.connection() as connection:
        for name, sequence in applied.items():
            await connection.execute("INSERT INTO checkpoints VALUES (%s, 0, %s)", (name, sequence))
        found = await plan(log, Archived(archived), connection, partitions=1, keep=keep, now=datetime.now(UTC))
    return {one.stream: one for one in found}


ALL = {"conversations": 20, "heads": 20, "messages": 20}


@pytest.mark.parametrize(
    ("archived", "applied", "told", "up_to"),
    [
        (20, ALL, None, 18),  # some stay in any case
        (11, ALL, None, 11),
        (20, {**ALL, "heads": 7}, None, 7),
        (20, {"conversations": 20, "messages": 20}, None, 0),  # one has not begun
        (20, ALL, 5, 5),
        (0, ALL, None, 0),
    ],
)
async def test_a_log_forgets_what_everybody_has(
    pool: AsyncConnectionPool, archived: int, applied: dict[str, int], told: int | None, up_to: int
) -> None:
    log = TrimmedLog()
    await log.ensure(Topology())
    if told is not None:
        await (await log.consume(STREAM, "fanout", after_sequence=told)).close()
    found = await planned(log, pool, archived=archived, applied=applied, keep=timedelta(seconds=-1))
    assert found[STREAM].up_to_sequence == up_to
    assert found[USERS].up_to_sequence == 0
    await trim(log, list(found.values()))
    assert log.trimmed == ([(STREAM, up_to)] if up_to else [])


async def test_what_was_stored_lately_stays(pool: AsyncConnectionPool) -> None:
    log = TrimmedLog()
    await log.ensure(Topology())
    found = await planned(log, pool, archived=20, applied=ALL, keep=timedelta(days=1))
    assert found[STREAM].up_to_sequence == 0


async def test_the_last_old_event_is_found_among_newer_ones() -> None:
    log = MemoryLog()
    await log.ensure(Topology())
    for number in range(EVENTS):
        await log.append(STREAM, [Record("conv.0.1", b"x")], expected_last_sequence=number)
    times = [delivery.stored_at async for delivery in log.read(STREAM)]
    for sequence in (1, 2, 13, 20):
        assert await trimming._older_than(log, STREAM, times[sequence - 1], EVENTS) == times.index(times[sequence - 1])
