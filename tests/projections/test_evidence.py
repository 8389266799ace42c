"""Evidence of tampering: what is whole is intact, and each single thing that was changed is named."""

from typing import Any

import pytest
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from projections.archive import chain
from projections.archive.clickhouse import ClickHouse
from projections.evidence.findings import ProofReport, kept_of
from projections.evidence.proof import prove
from projections.evidence.sketches import Sketch
from projections.telling import untold
from streams.memory import MemoryLog
from streams.ports import Delivery, Record
from tests.archive.archiving import a_log_of_everything, archive_all
from tests.projections.archived import ColdStore
from tests.projections.history import STREAM, USERS, append
from tests.projections.test_tiers import a_year, move_all
from tests.projections.workers import Project, applied

MESSAGES = 12


class Stores:
    """A deployment's three stores, with everything in them, to be changed behind everybody's back."""

    def __init__(self, log: MemoryLog, clickhouse: ClickHouse, pool: AsyncConnectionPool, postgres_url: str) -> None:
        self.log = log
        self.clickhouse = clickhouse
        self._pool = pool
        self._postgres_url = postgres_url

    async def prove(self, kept: dict[str, tuple[int, str]] | None = None) -> ProofReport:
        return await prove(
            self.log,
            self.clickhouse,
            self._postgres_url,
            partitions=1,
            kept=kept or {},
            tell=untold,
        )

    async def found(self) -> list[str]:
        return [str(finding) for finding in (await self.prove()).findings.kept]

    async def cold(self, sql: str) -> None:
        """Change the archive."""
        await self.clickhouse.command(f"{sql} SETTINGS mutations_sync = 1")

    async def warm(self, sql: str) -> None:
        """Change Postgres."""
        async with self._pool.connection() as connection:
            await connection.execute(sql.encode())

    async def row(self, sql: str) -> Any:
        return (await self.clickhouse.query(sql))[0]

    def logged(self, sequence: int, **changes: Any) -> Delivery:
        """Change the log; the event as it was."""
        deliveries = self.log._streams[STREAM].deliveries
        before = deliveries[sequence - 1]
        deliveries[sequence - 1] = replace(before, **changes)
        return before


@pytest.fixture
async def stores(
    log: MemoryLog, clickhouse: ClickHouse, pool: AsyncConnectionPool, project: Project, database: str
) -> Stores:
    await a_log_of_everything(log, messages=MESSAGES)
    async with project() as workers:
        await applied(workers, await log.last_sequence(STREAM))
        await applied(workers, await log.last_sequence(USERS), USERS)
    await append(log, [Record("conv.0.junk", b"\x00", {"x": "y"})])
    await archive_all(log, clickhouse)
    return Stores(log, clickhouse, pool, database)


async def test_what_is_whole_is_intact_and_all_of_it_was_looked_at(stores: Stores) -> None:
    report = await stores.prove()
    assert [str(finding) for finding in report.findings.kept] == []
    assert report.intact
    conversations, users = report.streams
    assert (conversations.events, conversations.logged) == (32, 32)
    assert (users.events, users.logged) == (8, 8)
    assert report.rows["archive messages"] == report.rows["warm messages"] == 2 * MESSAGES
    assert report.rows["warm changes"] == 31
    assert report.rows["archive memberships"] == 8
    assert all(report.rows[f"archive {table}"] for table in ("reads", "own_settings", "profiles", "devices", "blocks"))
    # Also of what is not archived yet, and when the log has forgotten its beginning.
    await a_log_of_everything(stores.log, messages=2)
    await stores.log.trim(STREAM, 20)
    assert await stores.found() == []


def flipped(column: str) -> str:
    """One bit of the second byte of a column. Done twice, it is undone."""
    second = f"char(bitXor(reinterpretAsUInt8(substring({column}, 2, 1)), 1))"
    return f"concat(substring({column}, 1, 1), {second}, substring({column}, 3))"


def event(change: str) -> str:
    return f"ALTER TABLE events UPDATE {change} WHERE stream = '{STREAM}' AND sequence = 5"


def typed(table: str, change: str) -> str:
    return f"ALTER TABLE {table} UPDATE {change} WHERE sequence = (SELECT min(sequence) FROM {table})"


BATCHES = f"ALTER TABLE archive_batches UPDATE {{}} WHERE stream = '{STREAM}'"

# What is changed in ClickHouse, and what changes it back; what is named, and nothing else is.
CHANGED_COLD = {
    event(f"data = {flipped('data')}"): ["archive events: CONV-0:5 ", "its data differs from the log's"],
    event(f"actor = {flipped('actor')}"): ["archive events: CONV-0:5 ", "its headers differs from the log's"],
    event("headers = if(empty(headers), map('x', 'y'), map())"): ["archive events: CONV-0:5 ", "headers"],
    event("digest = bitXor(digest, 1)"): ["archive events: CONV-0:5 ", "its digest"],
    event("stored_at = if(toUnixTimestamp64Micro(stored_at) % 2 = 0, stored_at + toIntervalMicrosecond(1), "
          "stored_at - toIntervalMicrosecond(1))"): ["CONV-0:5 ", "stored_at"],
    typed("messages", f"text = {flipped('text')}"): ["archive messages: CONV-0:2 ", "seq 1: its text is not"],
    typed("messages", "reply_to = bitXor(reply_to, 1)"): ["archive messages: CONV-0:2 ", "reply_to"],
    typed("conversations", f"settings = {flipped('settings')}"): ["archive conversations: CONV-0:1 ", "settings"],
    typed("own_settings", "pinned = NOT pinned"): ["archive own_settings: USER-0:8 ", "user ann: its pinned is not"],
    typed("devices", f"kind = {flipped('kind')}"): ["archive devices: USER-0:3 ", "kind"],
    BATCHES.format("undecodable = bitXor(undecodable, 1)"): ["archive archive_batches: CONV-0:", "undecodable"],
    BATCHES.format(
        "chain = concat(if(startsWith(chain, '0'), '1', '0'), substring(chain, 2), substring(chain, 1, 1))"
    ): ["archive archive_batches: CONV-0:", "does not lead to this anchor"],
}  # fmt: skip


async def only_one(stores: Stores, *words: str) -> None:
    """There is one finding, and it says all of this."""
    found = await stores.found()
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), (found, words)


async def test_a_byte_changed_in_the_archive_is_named(stores: Stores) -> None:
    [(batches,)] = await stores.clickhouse.query(f"SELECT count() FROM archive_batches WHERE stream = '{STREAM}'")
    for change, words in CHANGED_COLD.items():
        await stores.cold(change)
        if "archive_batches" in change:
            assert len(await stores.found()) == batches
        else:
            await only_one(stores, *words)
        if "substring(chain, 2)" not in change:
            await stores.cold(change)
    # The last one is not undone.
    assert all("does not lead to this anchor" in found for found in await stores.found())


async def test_rows_that_are_gone_or_there_twice_or_that_nobody_made_are_named(stores: Stores) -> None:
    await stores.cold("INSERT INTO messages SELECT * REPLACE(seq + 100 AS seq) FROM messages ORDER BY sequence LIMIT 1")
    await only_one(stores, "archive messages: CONV-0:2 ", "seq 101: there is a row that no event made")
    await stores.cold("ALTER TABLE messages DELETE WHERE seq > 100")
    await stores.cold("INSERT INTO reads SELECT * FROM reads")
    await only_one(stores, "archive reads: USER-0:7 ", "there is a row that no event made")
    await stores.cold("ALTER TABLE reads DELETE WHERE true")
    await only_one(stores, "archive reads: USER-0:7 ", "its row is missing")
    await stores.cold(f"INSERT INTO events SELECT * FROM events WHERE stream = '{STREAM}' AND sequence = 6")
    assert "archive events: CONV-0:6 " in "".join(await stores.found())
    await stores.cold(f"ALTER TABLE events DELETE WHERE stream = '{STREAM}' AND sequence = 6")
    found = "\n".join(await stores.found())
    assert "archive events: CONV-0:6 " in found
    assert "it is missing, and the log has it" in found
    await stores.log.trim(STREAM, 10)
    assert "archive events: CONV-0:6: it is missing, and the log does not have it" in "\n".join(await stores.found())


async def test_a_byte_changed_in_the_warm_tier_is_named(stores: Stores) -> None:
    await stores.warm("UPDATE messages SET body = overlay(body placing 'X' from 30) WHERE sequence = 2")
    await only_one(stores, "warm messages: CONV-0:2 ", "seq 1: its body is not what the event says")
    await stores.warm("DELETE FROM messages WHERE sequence = 2")
    await only_one(stores, "warm messages: CONV-0:2 ", "seq 1: its row is missing")
    await stores.warm("DELETE FROM messages")  # bounded, whatever there is
    assert len(await stores.found()) == 2 * MESSAGES
    await stores.warm("UPDATE changes SET actor_id = 'eve' WHERE sequence = 1")
    assert any("warm changes: CONV-0:1 " in found and "actor_id" in found for found in await stores.found())


@pytest.mark.usefixtures("months")
async def test_of_months_that_have_left_what_stayed_is_compared_and_nothing_else_is_missed(
    log: MemoryLog, clickhouse: ClickHouse, store: ColdStore, pool: AsyncConnectionPool, project: Project, database: str
) -> None:
    await a_year(log, project, store)
    stores = Stores(log, clickhouse, pool, database)
    before = (await stores.prove()).rows["warm messages"]
    assert await move_all(pool, store)
    report = await stores.prove()
    assert report.intact
    assert 0 < report.rows["warm messages"] < before  # among them one that stays of months that have left
    await stores.warm("UPDATE changes SET data = data || ' ' WHERE version = (SELECT min(version) FROM changes)")
    await only_one(stores, "warm changes: CONV-0:", "data is not")
    await stores.warm("DELETE FROM changes WHERE version = (SELECT max(version) FROM changes)")
    assert len(await stores.found()) == 2


async def test_a_byte_changed_in_the_log_is_named(stores: Stores) -> None:
    data = stores.logged(5, data=b"forged").data
    await only_one(stores, "log: CONV-0:5 ", "its data differs from the archive's, which is right")
    stores.logged(5, data=data)
    assert await stores.found() == []
    # A key is never trimmed, so it is missed also where the log has forgotten all around it.
    last = await append(stores.log, [Record("conv.0.dm.key", b"", {})])
    await archive_all(stores.log, stores.clickhouse, [STREAM])
    await stores.log.trim(STREAM, last)
    assert await stores.found() == []
    stores.log._streams[STREAM].deliveries.clear()
    await only_one(stores, f"log: CONV-0:{last}: it is missing, and the archive has it")


async def test_what_the_log_had_lost_before_it_was_archived_is_named(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await append(stores.log, [Record("conv.0.junk", b"1", {})] * 3) - 1
    all_of = type(stores.log._streams[STREAM]).after
    monkeypatch.setattr(
        type(stores.log._streams[STREAM]),
        "after",
        lambda stream, *bounds: [delivery for delivery in all_of(stream, *bounds) if delivery.sequence != lost],
    )
    assert await stores.found() == [f"log: {STREAM}:{lost}: it is missing, and was not archived yet"]
    await archive_all(stores.log, stores.clickhouse, [STREAM])
    gone = f"positions {lost} to {lost} were lost before they were archived"
    assert await stores.found() == [f"log: {STREAM}:{lost}: {gone}"]


async def test_who_changes_the_digest_as_well_is_found_by_the_chain(stores: Stores) -> None:
    [delivery] = [one async for one in stores.log.read(STREAM, after_sequence=4, up_to_sequence=5)]
    forged = replace(delivery, data=delivery.data.replace(b" na", b" no"))
    await stores.cold(event(f"data = replaceAll(data, ' na', ' no'), digest = {chain.digest(forged)}"))
    found = await stores.found()
    assert forged != delivery
    assert any("archive events: CONV-0:5 " in one and "differs from the log's, which is right" in one for one in found)
    await stores.log.trim(STREAM, 30)  # the log cannot say any more what is right
    found = await stores.found()
    assert any("archive_batches" in one and "changed" in one for one in found), found


async def test_who_writes_a_new_chain_is_found_by_one_that_was_kept(stores: Stores) -> None:
    kept = kept_of((await stores.prove()).as_dict())
    assert (await stores.prove(kept)).intact
    await a_log_of_everything(stores.log, messages=1)
    await archive_all(stores.log, stores.clickhouse)
    assert (await stores.prove(kept)).intact
    other = {stream: (sequence, link[::-1]) for stream, (sequence, link) in kept.items()}
    assert (await stores.prove(other)).findings.count == 2
    assert (await stores.prove({STREAM: (10_000, "")})).findings.count == 1
    with pytest.raises(ValueError, match="no report"):
        kept_of({})


def test_a_sketch_says_in_which_stretches_rows_differ_whatever_their_order() -> None:
    sketch = Sketch(positions=1_000_000)
    rows = [(number, f"row {number}") for number in range(1, 5_000)]
    for number, row in enumerate(rows, 1):
        sketch.expect("A", number, row)
    for number, row in reversed(list(enumerate(rows, 1))):
        sketch.find("A", number, row if number != 777 else (777, "another"))
    sketch.find("B", 1, rows[0])
    sketch.find("B", 1, rows[0])
    first, second = sketch.different()
    assert (first.stream, first.first <= 777 <= first.last) == ("A", True)
    assert second.stream == "B"
