"""The archiver: everything in it once, whatever ends it in between."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from projections.archive import archiver, chain, metrics
from projections.archive.archiver import Archiver
from projections.archive.batches import TURN_EVENTS, Batches, Bounds, Made
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.archive.typed import TABLES
from projections.reader import Interrupted
from streams import subjects
from streams.memory import MemoryLog
from streams.ports import ArchiveUnavailable, Delivery, Record
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


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("at", [3, 4, 5, 8, 9])
async def test_full_batches_that_broke_off_are_stored_once(
    log: MemoryLog, clickhouse_url: str, at: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "BATCH_MAX", 4)
    await a_log_of_everything(log, messages=9)
    clickhouse = Breaking(clickhouse_url, at=at, taken=taken)
    archive = await archive_all(log, clickhouse, [STREAM])
    assert clickhouse.inserts > at
    assert await read_archived(archive, STREAM) == await read(log, STREAM)
    assert (await clickhouse.query("SELECT count(), uniqExact(message_id) FROM messages"))[0] == (18, 18)
    batches = await clickhouse.query("SELECT first_sequence, last_sequence, chain FROM archive_batches ORDER BY 1")
    link, events = chain.FIRST, iter(await read(log, STREAM))
    for first, last, anchor in batches:
        of_batch = [next(events) for _ in range(first, last + 1)]
        for delivery in of_batch:
            link = chain.link(link, delivery)
        assert (of_batch[0].sequence, of_batch[-1].sequence, link.hex()) == (first, last, anchor)
    assert next(events, None) is None
    await clickhouse.close()


async def test_while_a_full_batch_is_stored_the_next_is_made(
    log: MemoryLog, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "BATCH_MAX", 4)
    await chat(log, 9).append()  # ten events
    done: list[str] = []
    made, gate = asyncio.Event(), asyncio.Event()
    make, store = Batches.make, Batches.store

    async def making(self: Batches, deliveries: Sequence[Delivery]) -> Made:
        found = await make(self, deliveries)
        done.append(f"made {deliveries[-1].sequence}")
        if len(done) == 2:
            made.set()
        return found

    async def storing(self: Batches, bounds: Bounds, batch: Made) -> None:
        await gate.wait()
        await store(self, bounds, batch)
        done.append(f"stored {bounds.last}")

    monkeypatch.setattr(Batches, "make", making)
    monkeypatch.setattr(Batches, "store", storing)
    archiving = asyncio.create_task(archive_all(log, clickhouse, [STREAM]))
    await asyncio.wait_for(made.wait(), 10)
    gate.set()
    await archiving
    assert done[:3] == ["made 4", "made 8", "stored 4"]
    assert sorted(done[3:]) == ["made 10", "stored 10", "stored 8"]


async def test_one_that_ends_waits_for_nothing_and_the_next_stores_what_was_begun(
    log: MemoryLog, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "BATCH_MAX", 4)
    await chat(log, 9).append()
    storing = asyncio.Event()

    async def stuck(*_: Any) -> None:
        storing.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "store", stuck)
        ending = asyncio.create_task(Archiver(log, clickhouse, STREAM, every_s=0.01).run())
        await asyncio.wait_for(storing.wait(), 10)
        ending.cancel()
        await asyncio.wait([ending], timeout=10)
        assert ending.cancelled()
    archive = await archive_all(log, clickhouse, [STREAM])
    assert await read_archived(archive, STREAM) == await read(log, STREAM)
    assert (await clickhouse.query("SELECT count(), uniqExact(seq) FROM messages"))[0] == (9, 9)


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


async def test_others_have_the_loop_while_rows_are_made(log: MemoryLog, clickhouse: ClickHouse) -> None:
    last = await chat(log, 300).append()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await Batches(log, clickhouse, STREAM).make(await read(log, STREAM))
    other.cancel()
    assert turns >= 2 * (last // TURN_EVENTS) >= 8  # for the raw events, and for what is made of them


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
