"""Months that leave Postgres for ClickHouse, and reading across both as if nothing had happened."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from domain.errors import NotFound, Unavailable
from domain.messages import Receipt
from projections.entries import read_heads
from projections.messages import MessagesProjection
from projections.projection import Connection, LoggedEvent
from projections.queries import Queries
from projections.reading import Database
from projections.sync import SyncQueries
from projections.tiers import moves
from projections.tiers.cold import Cold
from projections.tiers.leftovers import clear
from projections.tiers.months import Month, warm_months
from projections.tiers.moves import Differs, move
from projections.tiers.policy import KINDS, Leaving
from streams.codec import decode
from streams.cursor import Cursor
from streams.memory import MemoryLog
from tests.projections.archived import ColdStore
from tests.projections.history import STREAM, History
from tests.projections.workers import Project, applied, rows

HORIZON = datetime(2026, 6, 1, tzinfo=UTC)
ALL = dict.fromkeys(KINDS, HORIZON)
WARM_SEQS = "SELECT seq FROM messages ORDER BY seq"


async def a_year(log: MemoryLog, project: Project, store: ColdStore, *, messages: int = 40) -> Conversation:
    """Ann and bob, with a message every three days from the end of January on, projected and archived."""
    history = History(log, step=timedelta(days=3))
    conversation = history.create("ann", "bob", name="Tea")
    for number in range(messages):
        mentions = ["bob"] if number % 3 == 0 else []
        history.post(conversation, ("ann", "bob")[number % 2], f'"{number + 1}" \\ é\n', mentions=mentions)
        if number == messages // 2:
            history.rename(conversation, "ann", "Téa")
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    await store.archive(log, STREAM)
    return conversation


async def due_months(connection: Connection, model: str) -> list[Month]:
    return [month for month in await warm_months(connection, model) if month.end <= HORIZON]


async def move_all(pool: AsyncConnectionPool, store: ColdStore, *, leaving: Leaving = ALL) -> list[str]:
    moved = []
    async with pool.connection() as connection:
        for model in ("messages", "changes"):
            for month in await due_months(connection, model):
                if await move(connection, store, month, leaving=leaving):
                    moved.append(f"{model} {month.name}")
    return moved


async def pages(queries: Queries, conversation: Conversation) -> list[tuple[bytes, tuple[str, ...]]]:
    """All pages of ten, of messages backwards and forwards, and of events."""
    id_, found = int(conversation.id), []
    before, after, version = None, 0, 0
    while True:
        page, tiers = await queries.messages_page(id_, "ann", before=before, after=None, limit=10)
        found.append((msgspec.json.encode(page), tiers))
        if not page.has_more:
            break
        before = page.messages[0].seq
    while True:
        page, tiers = await queries.messages_page(id_, "ann", before=None, after=after, limit=10)
        found.append((msgspec.json.encode(page), tiers))
        if not page.has_more:
            break
        after = page.messages[-1].seq
    while True:
        events, tiers = await queries.events_page(id_, "ann", after=version, limit=10)
        found.append((msgspec.json.encode(events), tiers))
        if not events.has_more:
            break
        version = events.events[-1].version
    return found


@pytest.mark.usefixtures("months")
async def test_pages_are_the_same_bytes_when_months_have_moved(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))
    warm = await pages(queries, conversation)
    assert {tiers for _, tiers in warm} == {("warm",)}

    moved = await move_all(pool, store)

    cold = await pages(queries, conversation)
    assert [page for page, _ in cold] == [page for page, _ in warm]
    assert {tiers for _, tiers in cold} == {("warm",), ("cold",), ("warm", "cold")}
    assert moved == [f"{model} 2026-{month:02}" for model in ("messages", "changes") for month in range(2, 6)]
    assert await rows(pool, WARM_SEQS) == [(38,), (39,), (40,)]  # of June, and the last before it


@pytest.mark.usefixtures("months")
async def test_what_stayed_leaves_when_it_may(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    await move_all(pool, store, leaving={"direct": HORIZON})
    assert len(await rows(pool, WARM_SEQS)) == 40  # it is a group, which is kept longer
    cleared = []
    async with pool.connection() as connection:
        for month in await due_months(connection, "messages"):
            cleared.append(await clear(connection, Cold(store, partitions=1), month, leaving={"group": HORIZON}))
        left = await warm_months(connection, "messages")
    assert sum(moved.rows for moved in cleared if moved) == 37
    assert await rows(pool, WARM_SEQS) == [(38,), (39,), (40,)]
    assert [month.name for month in left] == ["2026-05", "2026-06"]
    page, tiers = await Queries(pool, cold=Cold(store, partitions=1)).messages_page(
        int(conversation.id), "bob", before=None, after=None, limit=200
    )
    assert [message.seq for message in page.messages] == list(range(1, 41))
    assert tiers == ("warm", "cold")


@pytest.mark.usefixtures("months")
async def test_a_late_event_of_a_month_that_has_moved_is_read_and_leaves_later(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    await move_all(pool, store)
    late = await rows(pool, "SELECT * FROM messages")
    queries = Queries(pool, cold=Cold(store, partitions=1))
    before = await pages(queries, conversation)
    async with pool.connection() as connection, connection.transaction():  # as after a replay of dead events
        deliveries = [delivery async for delivery in log.read(STREAM)]
        await MessagesProjection().apply(connection, [LoggedEvent(4, decode(deliveries[3]))])
    assert len(await rows(pool, "SELECT * FROM messages")) == len(late) + 1
    assert [page for page, _ in await pages(queries, conversation)] == [page for page, _ in before]
    async with pool.connection() as connection:
        for model in ("messages", "changes"):
            month = (await warm_months(connection, model))[0]
            await clear(connection, Cold(store, partitions=1), month, leaving=ALL)
            assert month.partition not in [month.partition for month in await warm_months(connection, model)]
    assert [page for page, _ in await pages(queries, conversation)] == [page for page, _ in before]


@pytest.mark.usefixtures("months")
@pytest.mark.parametrize(
    ("spoil", "model"),
    [
        ("ALTER TABLE messages UPDATE text = 'x' WHERE seq = 3", "messages"),
        ("ALTER TABLE messages DELETE WHERE seq = 3", "messages"),
        ("ALTER TABLE events DELETE WHERE version = 3", "changes"),
        ("ALTER TABLE events UPDATE actor = 'eve' WHERE version = 3", "changes"),
        ("ALTER TABLE events UPDATE data = unhex('80') WHERE type = 'conversation.created'", "changes"),
    ],
)
async def test_a_month_that_differs_stays(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore, spoil: str, model: str
) -> None:
    conversation = await a_year(log, project, store, messages=8)
    await store.execute(f"{spoil}")
    before = await rows(pool, f"SELECT tableoid::regclass::text, * FROM {model} ORDER BY 1, 2, 3")
    async with pool.connection() as connection:
        different = []
        for month in await warm_months(connection, model):
            try:
                await move(connection, store, month, leaving=ALL)
            except Differs as error:
                different.append(error.conversation_ids)
    assert different == [[int(conversation.id)]]
    kept = await rows(pool, f"SELECT tableoid::regclass::text, * FROM {model} ORDER BY 1, 2, 3")
    assert [row for row in before if row in kept] == kept


@pytest.mark.usefixtures("months")
async def test_without_clickhouse_cold_pages_are_unavailable_and_no_others(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    id_ = int(conversation.id)
    await move_all(pool, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))
    store.down = True
    try:
        newest = (await queries.messages_page(id_, "ann", before=None, after=None, limit=3)).page
        assert [message.seq for message in newest.messages] == [38, 39, 40]
        assert newest.has_more
        reads: list[Callable[[], Awaitable[object]]] = [
            lambda: queries.messages_page(id_, "ann", before=None, after=None, limit=4),
            lambda: queries.messages_page(id_, "ann", before=None, after=7, limit=2),
            lambda: queries.events_page(id_, "ann", after=0, limit=2),
            lambda: queries.events_after(id_, after=0, limit=2),
            lambda: queries.receipt(id_, "ann", "c7", min_version=1),
        ]
        for read in reads:
            with pytest.raises(Unavailable):
                await read()
        with pytest.raises(NotFound):  # a stranger learns nothing of it
            await queries.messages_page(id_, "eve", before=5, after=None, limit=2)
    finally:
        store.down = False


@pytest.mark.usefixtures("months")
async def test_what_a_projection_passed_over_comes_from_the_archive(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))

    async def read() -> tuple[list[int], tuple[str, ...]]:
        page, tiers = await queries.messages_page(int(conversation.id), "ann", before=8, after=None, limit=4)
        return [message.seq for message in page.messages], tiers

    async with pool.connection() as connection:
        await connection.execute("DELETE FROM messages WHERE seq = 6")
    assert await read() == ([4, 5, 6, 7], ("warm", "cold"))
    store.down = True
    try:
        assert await read() == ([4, 5, 7], ("warm",))  # nothing has left, so ClickHouse is not needed
        store.down = False
        await store.execute("ALTER TABLE messages DELETE WHERE seq = 6")
        with pytest.raises(Unavailable, match="6"):
            await read()
    finally:
        store.down = False


@pytest.mark.usefixtures("months")
async def test_a_receipt_is_found_when_its_message_has_moved(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))
    sent = [client for (client,) in await rows(pool, "SELECT client_msg_id FROM messages ORDER BY seq")]
    senders = [("ann", "bob")[number % 2] for number in range(len(sent))]

    async def receipts() -> list[Receipt | None]:
        ids = zip(senders, sent, strict=True)
        return [await queries.receipt(int(conversation.id), sender, id_, min_version=1) for sender, id_ in ids]

    before = await receipts()
    await move_all(pool, store)
    assert None not in before
    assert await receipts() == before
    assert await queries.receipt(int(conversation.id), "ann", sent[1], min_version=1) is None  # bob's


@pytest.mark.usefixtures("months")
async def test_a_reader_is_not_kept_waiting_and_a_long_one_keeps_the_month(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_year(log, project, store, messages=4)
    monkeypatch.setattr(moves, "TRIES", 2)
    monkeypatch.setattr(moves, "TRY_AGAIN_S", 0.01)
    async with pool.connection() as reader, pool.connection() as connection:
        month = (await warm_months(connection, "messages"))[0]
        async with reader.transaction():
            await reader.execute("SELECT count(*) FROM messages")
            with pytest.raises(moves.Busy):
                await move(connection, store, month, leaving=ALL)
            assert len(await rows(pool, WARM_SEQS)) == 4
        assert await move(connection, store, month, leaving=ALL) is not None


@pytest.mark.usefixtures("months")
async def test_sync_says_truncated_where_events_have_moved_and_is_whole_where_none_has(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    sync, end = SyncQueries(pool), conversation.version
    since = {sequence: Cursor((sequence,), 0) for sequence in (5, end - 3, end - 2)}  # the last three are warm

    async def synced(sequence: int) -> tuple[list[int], bool]:
        entry = (await sync.sync("ann", since[sequence], limit=10, events_max=100)).conversations[0]
        return [event.version for event in entry.events], entry.events_truncated

    assert await synced(5) == (list(range(6, end + 1)), False)
    await move_all(pool, store)
    assert await synced(5) == ([end - 2, end - 1, end], True)
    assert await synced(end - 2) == ([end - 1, end], False)
    assert await sync.missed("ann", since[5], limit=500) is None
    missed = await sync.missed("ann", since[end - 2], limit=500)
    assert missed is not None
    assert [event.version for event in missed.events] == [end - 1, end]


@pytest.mark.usefixtures("months")
async def test_a_snapshot_is_of_before_a_swap_or_of_after_it(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store, messages=6)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'"

    async def last_message() -> bytes | None:
        async with Database(pool).snapshot() as snapshot:
            await snapshot.rows("SELECT * FROM checkpoints", {})
            return (await read_heads(snapshot, [int(conversation.id)]))[int(conversation.id)].last_message

    before = await last_message()
    async with pool.connection() as connection:
        month = (await warm_months(connection, "messages"))[0]
        async with connection.transaction():
            assert await move(connection, store, month, leaving=ALL) is not None
            reading = asyncio.create_task(last_message())
            async with asyncio.timeout(10):
                while await rows(pool, waiting) != [(1,)]:
                    await asyncio.sleep(0.01)
    assert before is not None
    assert await reading == before
