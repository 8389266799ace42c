"""The archiver: everything in it once, whatever ends it in between."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from projections.archive import metrics
from projections.archive.archiver import Archiver
from projections.archive.batches import TURN_EVENTS, Batches, Bounds
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.archive.typed import TABLES
from projections.reader import Interrupted
from streams import subjects
from streams.memory import MemoryLog
from streams.ports import ArchiveUnavailable, Record
from streams.topology import Topology
from tests.archive.archiving import a_log_of_everything, archive_all, read, read_archived
from tests.projections.history import STREAM, USERS, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_archive_gives_back_what_the_log_has_byte_for_byte(log: MemoryLog, clickhouse: ClickHouse) -> None:
    await a_log_of_everything(log)
    archive = await archive_all(log, clickhouse)
    for stream in (STREAM, USERS):
        assert await read_archived(archive, stream) == await read(log, stream)
    wanted = (await read(log, STREAM))[3]
    of_subject = [delivery for delivery in await read(log, STREAM) if delivery.subject == wanted.subject]
    assert await read_archived(archive, STREAM, subject=wanted.subject) == of_subject
    assert await read_archived(archive, STREAM, after_sequence=5) == (await read(log, STREAM))[5:]


async def test_every_typed_table_has_its_rows(log: MemoryLog, clickhouse: ClickHouse) -> None:
    await a_log_of_everything(log, messages=3)
    await archive_all(log, clickhouse)
    counts = {table.name: (await clickhouse.query(f"SELECT count() FROM {table.name}"))[0][0] for table in TABLES}
    assert counts == {
        "messages": 6,
        "conversations": 3,
        "memberships": 8,
        "reads": 1,
        "own_settings": 1,
        "profiles": 1,
        "devices": 2,
        "blocks": 2,
    }
    rows = await clickhouse.query(
        "SELECT text, body, mentions FROM messages WHERE hasToken(text, 'naïve') ORDER BY seq"
    )
    assert rows[0] == ("message 0: naïve 🚲", "", ["bob"])
    changes = await clickhouse.query("SELECT user_id, change, role FROM memberships ORDER BY sequence, user_id")
    assert ("dan", "left", "") in changes
    assert ("bob", "role", "admin") in changes


async def test_every_column_is_described(clickhouse: ClickHouse) -> None:
    bare = "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = ''"
    assert await clickhouse.query(bare) == []


class Breaking(ClickHouse):
    """A database whose connection breaks at one insert: before it, or after it was taken."""

    def __init__(self, url: str, *, at: int, taken: bool) -> None:
        super().__init__(url)
        self.inserts = 0
        self._at = at
        self._taken = taken

    async def insert(self, table: str, columns: Mapping[str, Sequence[Any]], *, token: str) -> None:
        """See `ClickHouse.insert`."""
        self.inserts += 1
        if self.inserts == self._at and not self._taken:
            raise ArchiveUnavailable("the connection broke")
        await super().insert(table, columns, token=token)
        if self.inserts == self._at and self._taken:
            raise ArchiveUnavailable("the connection broke")


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 5])
async def test_a_batch_that_broke_off_is_stored_once(log: MemoryLog, clickhouse_url: str, at: int, taken: bool) -> None:
    await a_log_of_everything(log, messages=5)
    clickhouse = Breaking(clickhouse_url, at=at, taken=taken)
    archive = await archive_all(log, clickhouse, [STREAM])
    assert clickhouse.inserts >= at
    assert await read_archived(archive, STREAM) == await read(log, STREAM)
    assert (await clickhouse.query("SELECT count(), uniqExact(message_id) FROM messages"))[0] == (10, 10)
    assert (await clickhouse.query("SELECT count() FROM archive_batches"))[0] == (1,)
    await clickhouse.close()


async def test_two_archivers_of_one_stream_store_everything_once(log: MemoryLog, clickhouse: ClickHouse) -> None:
    both = [asyncio.create_task(Archiver(log, clickhouse, STREAM, every_s=0.01).run()) for _ in range(2)]
    history = chat(log, 10)
    for _ in range(20):
        history.post(history.conversations[0], "bob", "and another one")
        await history.append()
        await asyncio.sleep(0.01)  # a pace, not a wait
    archive = await archive_all(log, clickhouse, [STREAM])
    for task in both:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    assert await read_archived(archive, STREAM) == await read(log, STREAM)
    assert (await clickhouse.query("SELECT count(), uniqExact(seq) FROM messages"))[0] == (30, 30)


async def test_others_have_the_loop_while_rows_are_made(
    log: MemoryLog, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = await chat(log, 300).append()
    turns, seen = 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def insert(*_: Any, **__: Any) -> None:
        seen.append(turns)

    monkeypatch.setattr(clickhouse, "insert", insert)
    other = asyncio.create_task(others())
    await Batches(log, clickhouse, STREAM).store(Bounds(1, last), await read(log, STREAM))
    other.cancel()
    enough = last // TURN_EVENTS
    assert enough >= 4
    assert seen[0] >= enough  # for the raw events
    assert seen[1] >= 2 * enough  # and for what is made of them


async def test_what_cannot_be_decoded_is_kept_raw_and_stops_nothing(log: MemoryLog, clickhouse: ClickHouse) -> None:
    before = metrics.UNDECODABLE.labels(STREAM)._value.get()
    await chat(log, 2).append()
    foreign = [
        Record("conv.0.7", b"\xff\x00 no event", {"Some": "header"}),
        Record("conv.0.8", b"\xc1", {subjects.TYPE: "message.posted", subjects.VERSION: "007", subjects.ACTOR: "eve"}),
    ]
    end = await log.last_sequence(STREAM)
    await log.append(STREAM, foreign, expected_last_sequence=end)
    archive = await archive_all(log, clickhouse, [STREAM])
    assert await read_archived(archive, STREAM) == await read(log, STREAM)
    assert metrics.UNDECODABLE.labels(STREAM)._value.get() == before + 2
    assert (await clickhouse.query("SELECT sum(undecodable), sum(events) FROM archive_batches"))[0] == (2, end + 2)


async def test_an_archive_of_another_log_is_left_alone(log: MemoryLog, clickhouse: ClickHouse) -> None:
    await chat(log, 5).append()
    archive = await archive_all(log, clickhouse, [STREAM])
    other = MemoryLog()
    await other.ensure(Topology())
    await chat(other, 2).append()
    with pytest.raises(Interrupted, match="of another log"):
        await Archiver(other, clickhouse, STREAM, every_s=0.01).position()
    assert await archive.position(STREAM) == await log.last_sequence(STREAM)


async def test_an_archive_that_does_not_answer_says_so() -> None:
    clickhouse = ClickHouse("http://127.0.0.1:1/default")
    with pytest.raises(ArchiveUnavailable):
        await ClickHouseArchive(clickhouse).position(STREAM)
    with pytest.raises(ArchiveUnavailable):
        await clickhouse.query("SELECT 1")
    await clickhouse.close()
