"""Pages of history of 50 messages: of the hot tier, of the warm one, and of months that have moved to the cold one.

All in one process, with the projections' own code, on the deployment's Valkey and Postgres and a ClickHouse (chDB) of
its own.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis.asyncio
import uvloop
from psycopg_pool import AsyncConnectionPool

from benchmarks.deployment import Deployment
from benchmarks.report import Figure, Pace
from domain.events import ConversationCreated, Event, MessagePosted
from domain.ids import compose
from migrations.postgres.apply import upgrade
from projections.archive.archiver import Archiver
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.conversations import ConversationsProjection
from projections.heads import HeadsProjection
from projections.hot import HotStore
from projections.hot_feed import HotFeed
from projections.hot_keys import TAIL_MAX
from projections.inbox import InboxQueries
from projections.messages import MessagesProjection
from projections.queries import Queries
from projections.tiers.cold import Cold
from projections.tiers.policy import WarmPolicy
from projections.tiers.scheduler import StoreScheduler
from projections.worker import ProjectionWorker
from runtime.bench.histogram import Percentiles, percentiles
from streams import subjects
from streams.codec import Metadata, encode
from streams.memory import MemoryLog
from streams.ports import BATCH_MAX
from streams.topology import Topology

PAGE: Final = 50
HOT_MS, WARM_MS, COLD_MS = 2.0, 10.0, 60.0
HOT_DATABASE: Final = 15  # of Valkey: the deployment has a hot store of its own
CONVERSATIONS: Final = 50
STREAM: Final = subjects.stream(subjects.CONV, 0)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
WORDS: Final = tuple(f"word{number}" for number in range(5_000))
POLL_S: Final = 0.05


def run(deployment: Deployment, pace: Pace) -> Figure:
    """Random pages, before the months move and afterwards."""
    messages = 20_000 if pace.seconds < 5 else 200_000
    hot, warm, cold, floor, moved_s = uvloop.run(
        _measured(deployment.postgres_url, deployment.valkey_url, pace, messages)
    )
    return Figure(
        name=f"history page of {PAGE} from the cold tier, p99",
        unit="ms",
        measured=cold.p99,
        floor=floor.p99,
        target=f"≤ {COLD_MS:g} ms; ≤ {WARM_MS:g} ms warm, ≤ {HOT_MS:g} ms hot",
        met=cold.p99 <= COLD_MS and warm.p99 <= WARM_MS and hot.p99 <= HOT_MS,
        latency_ms=cold,
        notes=f"hot: p50 {hot.p50:g} ms, p99 {hot.p99:g} ms; "
        f"warm: p50 {warm.p50:g} ms, p99 {warm.p99:g} ms; {messages:,} messages and their events of six months "
        f"moved in {moved_s:.1f} s ({2 * messages / moved_s:,.0f} rows/s)",
    )


async def _measured(
    postgres_url: str, valkey_url: str, pace: Pace, messages: int
) -> tuple[Percentiles, Percentiles, Percentiles, Percentiles, float]:
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-") as folder:
        async with _stores(postgres_url, Path(folder)) as (pool, clickhouse):
            ids = await _fill(pool, clickhouse, messages)
            cold = Cold(clickhouse, partitions=1)
            queries = Queries(pool, cold=cold)
            last = messages // CONVERSATIONS
            warm_pages = await _pages(queries, ids, last, pace)
            async with _hot(pool, valkey_url) as hot:
                looking = Queries(pool, cold=cold, hot=hot)
                for id_ in ids:
                    await looking.messages_page(id_, "ann", before=None, after=None, limit=PAGE)
                hot_pages = await _pages(looking, ids, last, pace, lowest=last - TAIL_MAX + PAGE + 1, tier="hot")
            scheduler = StoreScheduler(pool, cold, WarmPolicy.parse("1"), now=lambda: START + timedelta(days=365))
            began_s = time.perf_counter()
            async for step in scheduler.round():
                if step.outcome != "moved":
                    raise RuntimeError(f"a month did not move: {step}")
            moved_s = time.perf_counter() - began_s
            cold_pages = await _pages(queries, ids, last - 1, pace)  # the last message of each stays warm
            return hot_pages, warm_pages, cold_pages, await _floor(clickhouse, ids, last - 1, pace), moved_s


@asynccontextmanager
async def _hot(pool: AsyncConnectionPool, valkey_url: str) -> AsyncIterator[HotStore]:
    url = urlunsplit(urlsplit(valkey_url)._replace(path=f"/{HOT_DATABASE}"))
    async with redis.asyncio.Redis.from_url(url) as valkey:
        await valkey.flushdb()
        feed = HotFeed(valkey, pool, [STREAM, subjects.stream(subjects.USER, 0)])
        feeding = asyncio.create_task(feed.run())
        while not feed.epochs_total:
            await asyncio.sleep(POLL_S)
        try:
            yield HotStore(valkey, InboxQueries(pool))
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await valkey.flushdb()


async def _pages(
    queries: Queries, ids: list[int], last: int, pace: Pace, *, lowest: int = PAGE + 1, tier: str | None = None
) -> Percentiles:
    dice, taken = random.Random(1), []
    warm_s = time.perf_counter() + pace.warmup_s
    while (began_s := time.perf_counter()) < warm_s + pace.seconds:
        before = dice.randint(lowest, last + 1)
        page, tiers = await queries.messages_page(dice.choice(ids), "ann", before=before, after=None, limit=PAGE)
        if [message.seq for message in page.messages] != list(range(before - PAGE, before)):
            raise RuntimeError("a page is not what it should be")
        if tier is not None and tiers != (tier,):
            raise RuntimeError(f"a page is from {tiers}")
        if began_s >= warm_s:
            taken.append(time.perf_counter() - began_s)
    return percentiles(taken)


async def _floor(clickhouse: ClickHouse, ids: list[int], last: int, pace: Pace) -> Percentiles:
    """The same rows by one statement, unauthorised and as they come."""
    dice, taken = random.Random(1), []
    sql = (
        "SELECT seq, sender_id, created_at, text FROM messages "
        "PREWHERE conversation_id = {id:UInt64} AND seq >= {low:UInt64} AND seq < {high:UInt64} ORDER BY seq"
    )
    until_s = time.perf_counter() + pace.seconds
    while (began_s := time.perf_counter()) < until_s:
        before = dice.randint(PAGE + 1, last + 1)
        await clickhouse.query(sql, {"id": dice.choice(ids), "low": before - PAGE, "high": before})
        taken.append(time.perf_counter() - began_s)
    return percentiles(taken)


async def _fill(pool: AsyncConnectionPool, clickhouse: ClickHouse, messages: int) -> list[int]:
    """Six months of conversations, projected and archived; their ids."""
    log, dice, last = MemoryLog(), random.Random(2), 0
    await log.ensure(Topology())
    first_ms, step = round(START.timestamp() * 1000), timedelta(days=180) / messages
    ids = [compose(first_ms + number, 0, 0) for number in range(CONVERSATIONS)]
    batch: list[Event] = [_created(id_) for id_ in ids]
    for number in range(messages):
        batch.append(_posted(ids[number % CONVERSATIONS], number, " ".join(dice.choices(WORDS, k=9)), step))
        if len(batch) == BATCH_MAX or number == messages - 1:
            subjects_of = [subjects.aggregate(subjects.CONV, 0, event.originator_id) for event in batch]
            records = [encode(event, subject, Metadata()) for event, subject in zip(batch, subjects_of, strict=True)]
            last = await log.append(STREAM, records, expected_last_sequence=last)
            batch = []
    worker = ProjectionWorker(
        log, pool, [ConversationsProjection(), HeadsProjection(), MessagesProjection()], partition=0
    )
    archive = ClickHouseArchive(clickhouse)
    tasks = [
        asyncio.create_task(worker.run()),
        asyncio.create_task(Archiver(log, clickhouse, STREAM, every_s=0.1).run()),
    ]
    try:
        while worker.applied_sequence < last or await archive.position(STREAM) < last:
            await asyncio.sleep(POLL_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ids


def _created(id_: int) -> Event:
    return ConversationCreated(
        originator_id=str(id_),
        originator_version=1,
        timestamp=START,
        actor_id="ann",
        originator_topic="conversation",
        kind="group",
        name=None,
        members={"ann": "owner", "bob": "member"},
        settings={},
    )


def _posted(id_: int, number: int, text: str, step: timedelta) -> Event:
    seq = number // CONVERSATIONS + 1
    return MessagePosted(
        originator_id=str(id_),
        originator_version=seq + 1,
        timestamp=START + timedelta(milliseconds=round((number * step).total_seconds() * 1000)),
        actor_id="ann",
        seq=seq,
        message_id=number + 1,  # rising, as ids are
        client_msg_id=str(number),
        body={"type": "text", "text": text},
        reply_to=None,
        mentions=[],
    )


@asynccontextmanager
async def _stores(postgres_url: str, folder: Path) -> AsyncIterator[tuple[AsyncConnectionPool, ClickHouse]]:
    """An empty database each."""
    name = f"bench_{token_hex(6)}"
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
        clickhouse = ClickHouse(f"chdb://{folder / 'clickhouse'}")
        try:
            await asyncio.to_thread(upgrade, url)
            async with AsyncConnectionPool(url, min_size=2, kwargs={"autocommit": True}, open=False) as pool:
                yield pool, clickhouse
        finally:
            await clickhouse.close()
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
