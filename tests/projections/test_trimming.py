"""What the log may forget: only what is archived, applied, told and old; and that nobody notices."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import pytest
from psycopg_pool import AsyncConnectionPool

from commands import covering
from commands.cache import Loaded
from commands.covering import Covering
from commands.repository import Repository
from commands.snapshots import PostgresSnapshots
from projections.archive.clickhouse import ClickHouse
from projections.tiers import trimming
from projections.tiers.trimming import LogDiffers, Trim, Trimmer
from streams import archived, codec, subjects
from streams.archived import ArchivedLog
from streams.memory import MemoryLog
from streams.ports import Archive, ArchiveUnavailable, Delivery, LogUnavailable, Record
from tests.archive.archiving import a_log_of_everything, archive_all, read
from tests.projections.history import STREAM, USERS

EVENTS: Final = 20
ALL: Final = {"conversations": 20, "heads": 20, "messages": 20}
LATER = timedelta(seconds=-1)  # to keep: not even what was stored just now


class Archived:
    """An archive that has a stream up to somewhere."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence

    async def position(self, stream: str) -> int:
        return self.sequence if stream == STREAM else 0


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived, "CHUNK_EVENTS", 5)
    monkeypatch.setattr(trimming, "KEEP_EVENTS", 2)
    monkeypatch.setattr(trimming, "STEP_EVENTS", 16)
    monkeypatch.setattr(trimming, "COVER_EVENTS", 7)
    monkeypatch.setattr(covering, "GROUP", 2)


def trimmer(log: MemoryLog, archive: Any, pool: AsyncConnectionPool, *, keep: timedelta = LATER) -> Trimmer:
    def covering(family: str, partition: int) -> Covering:
        return Covering(pool, family=family, partition=partition)

    return Trimmer(log, cast(Archive, archive), covering, partitions=1, keep=keep)


async def planned(trimmer: Trimmer, pool: AsyncConnectionPool, applied: dict[str, int]) -> dict[str, Trim]:
    async with pool.connection() as connection:
        for name, sequence in applied.items():
            await connection.execute(
                "INSERT INTO checkpoints VALUES (%s, 0, %s) ON CONFLICT (projection, partition)"
                " DO UPDATE SET sequence = excluded.sequence",
                (name, sequence),
            )
        return {one.stream: one for one in await trimmer.plan(connection, datetime.now(UTC))}


async def events(log: MemoryLog) -> None:
    for number in range(EVENTS):
        await log.append(STREAM, [Record("conv.0.1", b"x")], expected_last_sequence=number)


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
async def test_a_log_may_forget_what_everybody_has(
    pool: AsyncConnectionPool, log: MemoryLog, archived: int, applied: dict[str, int], told: int | None, up_to: int
) -> None:
    await events(log)
    if told is not None:
        await (await log.consume(STREAM, "fanout", after_sequence=told)).close()
    found = await planned(trimmer(log, Archived(archived), pool), pool, applied)
    assert found[STREAM].up_to_sequence == up_to
    assert found[USERS].up_to_sequence == 0


async def test_what_was_stored_lately_stays(pool: AsyncConnectionPool, log: MemoryLog) -> None:
    await events(log)
    found = await planned(trimmer(log, Archived(20), pool, keep=timedelta(days=1)), pool, ALL)
    assert found[STREAM].up_to_sequence == 0


async def test_the_last_old_event_is_found_among_newer_ones(log: MemoryLog) -> None:
    await events(log)
    times = [delivery.stored_at async for delivery in log.read(STREAM)]
    for sequence in (1, 2, 13, 20):
        found = await trimming._older_than(log, STREAM, times[sequence - 1], 0, EVENTS)
        assert found == times.index(times[sequence - 1])


# -- a log that is trimmed ---------------------------------------------------------------------------------


class History:
    """A log of everything, archived and, as far as Postgres says, applied."""

    def __init__(self, log: MemoryLog, archive: Archive, pool: AsyncConnectionPool, events: list[Delivery]) -> None:
        self.log = log
        self.archive = archive
        self.pool = pool
        self.events = events
        self.ids = {
            family: list(dict.fromkeys(subjects.aggregate_id(one.subject) for one in events if one.stream == stream))
            for family, stream in ((subjects.CONV, STREAM), (subjects.USER, USERS))
        }

    async def trim(self) -> int:
        """All that may go."""
        one = trimmer(self.log, self.archive, self.pool)
        ends = {name: await self.log.last_sequence(STREAM) for name in ALL}
        ends |= {name: await self.log.last_sequence(USERS) for name in ("users", "markers")}
        return sum([await one.trim(plan) for plan in (await planned(one, self.pool, ends)).values() if plan.events])

    async def loaded(self, archive: Archive | None, ids: dict[str, list[str]] | None = None) -> list[Loaded]:
        """Every aggregate, as a new writer loads it."""
        whole = ArchivedLog(self.log, archive)
        snapshots = PostgresSnapshots(self.pool)
        repositories = {
            family: Repository(self.log, snapshots, family=family, partition=0, archived=whole)
            for family in (subjects.CONV, subjects.USER)
        }
        wanted = (ids or self.ids).items()
        return [await repositories[family].load(id_) for family, of_family in wanted for id_ in of_family]

    async def execute(self, statement: str) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(statement.encode())


@pytest.fixture
async def history(pool: AsyncConnectionPool, clickhouse: ClickHouse, log: MemoryLog) -> History:
    await a_log_of_everything(log)
    poison = Record("conv.0.7", b"\xc1", {"Rr-Type": "message.posted", "Rr-Version": "1"})
    key = Record("conv.0.dm.ab", b"", {"Rr-Type": "reserved"})
    end = await log.last_sequence(STREAM)
    await log.append(STREAM, [key, poison, *[Record("conv.0.8", b"") for _ in range(3)]], expected_last_sequence=end)
    await log.append(USERS, [Record("user.0.x", b"") for _ in range(2)], expected_last_sequence=8)
    archive = await archive_all(log, clickhouse)
    async with pool.connection() as connection:
        await connection.execute("TRUNCATE snapshots, checkpoints")
    made = History(log, archive, pool, [*await read(log, STREAM), *await read(log, USERS)])
    made.ids = {family: [id_ for id_ in ids if id_ not in {"7", "8", "x", "dm.ab"}] for family, ids in made.ids.items()}
    return made


def states(loaded: Sequence[Loaded]) -> list[Any]:
    return [cast(Any, one.aggregate).state() for one in loaded]


async def test_nobody_notices_what_a_log_has_forgotten(history: History) -> None:
    before = states(await history.loaded(None))
    forgotten = await history.trim()
    left = [*await read(history.log, STREAM), *await read(history.log, USERS)]
    assert forgotten == len(history.events) - 4  # two of each stream stay
    assert [one.subject for one in left] == ["conv.0.dm.ab", *["conv.0.8"] * 2, *["user.0.x"] * 2]
    whole = ArchivedLog(history.log, history.archive)
    assert [*await read(whole, STREAM), *await read(whole, USERS)] == history.events
    assert states(await history.loaded(None)) == before  # the archive was not asked
    assert await history.trim() == 0


async def test_what_never_was_is_new_without_the_archive(history: History) -> None:
    await history.trim()
    never = {subjects.CONV: ["123", "dm.never", "pair.never"], subjects.USER: ["nobody"]}
    assert [one.aggregate for one in await history.loaded(None, never)] == [None] * 4


@pytest.mark.parametrize("lost", ["DELETE FROM snapshots", "TRUNCATE snapshots", "DELETE FROM covered"])
async def test_lost_snapshots_make_nothing_new(history: History, lost: str) -> None:
    before = states(await history.loaded(None))
    await history.trim()
    await history.execute(lost)
    with pytest.raises(ArchiveUnavailable):
        await history.loaded(None)
    with pytest.raises(ArchiveUnavailable):
        await history.loaded(None, {subjects.USER: ["nobody"], subjects.CONV: []})
    assert states(await history.loaded(history.archive)) == before
    # With the next events that are trimmed, the snapshots are made again.
    more = [Record("conv.0.8", b"") for _ in range(3)]
    await history.log.append(STREAM, more, expected_last_sequence=await history.log.last_sequence(STREAM))
    assert await history.trim() == 2  # the archive has no more
    conversations = {subjects.CONV: history.ids[subjects.CONV], subjects.USER: []}
    assert states(await history.loaded(None, conversations)) == before[: len(conversations[subjects.CONV])]


async def test_an_event_that_cannot_be_folded_is_not_forgotten_about(history: History) -> None:
    poisoned = {subjects.CONV: ["7"], subjects.USER: []}
    with pytest.raises(Exception) as before:  # noqa: PT011  # whatever the decoder says
        await history.loaded(None, poisoned)
    assert not isinstance(before.value, LogUnavailable)
    await history.trim()
    with pytest.raises(type(before.value)):
        await history.loaded(history.archive, poisoned)
    with pytest.raises(ArchiveUnavailable):
        await history.loaded(None, poisoned)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE events UPDATE data = 'x' WHERE stream = 'CONV-0' AND sequence = 20",
        "ALTER TABLE events UPDATE actor = 'eve' WHERE stream = 'CONV-0' AND sequence = 20",
        "ALTER TABLE events DELETE WHERE stream = 'CONV-0' AND sequence = 20",
    ],
)
async def test_what_the_archive_has_otherwise_stays(history: History, clickhouse: ClickHouse, change: str) -> None:
    await clickhouse.command(f"{change} SETTINGS mutations_sync = 1")
    with pytest.raises(LogDiffers, match="CONV-0 20"):
        await history.trim()
    assert await history.log.trimmed(STREAM) == 16  # a step
    assert (await read(history.log, STREAM))[0].sequence == 17


@pytest.mark.parametrize("seed", range(4))
async def test_a_trim_that_was_broken_off_goes_on(history: History, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    before = states(await history.loaded(None))
    trim, chance = history.log.trim, random.Random(seed)

    async def breaking(stream: str, up_to_sequence: int) -> None:
        before, after = chance.random() < 0.4, chance.random() < 0.4
        if not before:
            await trim(stream, up_to_sequence)
        if before or after:
            raise LogUnavailable("gone")

    monkeypatch.setattr(history.log, "trim", breaking)
    while True:
        try:
            if not await history.trim():
                break
        except LogUnavailable:
            assert states(await history.loaded(None)) == before
    assert states(await history.loaded(None)) == before
    whole = ArchivedLog(history.log, history.archive)
    assert [*await read(whole, STREAM), *await read(whole, USERS)] == history.events


async def test_the_snapshots_follow_what_was_archived_as_it_is(history: History) -> None:
    """They are of the log's events: folded from the first, whatever chunk they came in."""
    await history.trim()
    async with history.pool.connection() as connection:
        cursor = await connection.execute("SELECT aggregate_id, version FROM snapshots WHERE schema > 0")
        kept: dict[str, int] = dict(await cursor.fetchall())
    newest = {subjects.aggregate_id(one.subject): one for one in history.events}
    wanted = {id_ for ids in history.ids.values() for id_ in ids}
    assert kept == {id_: codec.event_version(newest[id_].headers) for id_ in wanted}
