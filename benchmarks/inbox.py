"""A page of 50 out of an inbox of 1,000 conversations from the hot store, against one raw pipeline of the same keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis.asyncio
import uvloop
from psycopg_pool import AsyncConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.deployment import Deployment
from benchmarks.member import CONVERSATIONS, Member
from benchmarks.report import Figure, Pace
from projections import hot_keys
from projections.hot import HotStore
from projections.inbox import InboxQueries
from projections.pages import Inbox
from runtime.bench.histogram import Percentiles, percentiles
from streams.cursor import Cursor

PAGE: Final = 50
MOST: Final = 5.0
WAIT_S: Final = 30.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """One page after the other, in turn with the floor; p99 against p99."""
    hot, floor, rebuilt, postgres = uvloop.run(_measured(deployment, pace))
    return Figure(
        name=f"inbox page of {PAGE} out of {CONVERSATIONS:,} conversations, p99",
        unit="ms",
        measured=hot.p99,
        floor=floor.p99,
        target=f"≤ {MOST:g} times one raw Valkey pipeline of the same keys",
        met=hot.p99 <= MOST * floor.p99,
        latency_ms=hot,
        notes=f"p50 {hot.p50:g} ms against {floor.p50:g} ms; the same page rebuilt whole into an empty hot store "
        f"{rebuilt * 1000:.1f} ms, from Postgres alone p50 {postgres.p50:g} ms, p99 {postgres.p99:g} ms",
    )


async def _measured(deployment: Deployment, pace: Pace) -> tuple[Percentiles, Percentiles, float, Percentiles]:
    valkey = redis.asyncio.Redis.from_url(deployment.valkey_url, retry=Retry(NoBackoff(), 0))
    pool = AsyncConnectionPool(deployment.postgres_url, min_size=1, max_size=2, open=False)
    await pool.open()
    try:
        async with Member.seated(deployment, quick=pace.seconds < 5) as member:
            inbox = InboxQueries(pool)
            hot = HotStore(valkey, inbox)
            await _in_force(valkey, member.cursor)
            started = time.perf_counter()
            first = await hot.page(member.user_id, limit=PAGE)
            rebuilt = time.perf_counter() - started
            floor = await _pipeline(valkey, member, first)
            taken: dict[str, list[float]] = {"hot": [], "floor": [], "postgres": []}
            until = time.perf_counter() + pace.warmup_s + 2 * pace.seconds
            warm = time.perf_counter() + pace.warmup_s
            while (now := time.perf_counter()) < until:
                for name, read in (
                    ("hot", lambda: hot.page(member.user_id, limit=PAGE)),
                    ("floor", floor),
                    ("postgres", lambda: inbox.page(member.user_id, limit=PAGE)),
                ):
                    seconds = await _timed(read)
                    if now >= warm:
                        taken[name].append(seconds)
            return percentiles(taken["hot"]), percentiles(taken["floor"]), rebuilt, percentiles(taken["postgres"])
    finally:
        await pool.close()
        await valkey.aclose()


async def _timed(read: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await read()
    return time.perf_counter() - started


async def _in_force(valkey: "redis.asyncio.Redis", cursor: Cursor) -> None:
    """Wait until the hot store has what the read models have."""
    asked: Any = valkey  # gives bytes, which its type does not say
    async with asyncio.timeout(WAIT_S):
        while True:
            epoch = await asked.get(hot_keys.EPOCH)
            at = await asked.hgetall(hot_keys.root((epoch or b"").decode()) + "at")
            if int(at.get(b"CONV-0", 0)) >= cursor.positions[0]:
                return
            await asyncio.sleep(0.05)


async def _pipeline(valkey: "redis.asyncio.Redis", member: Member, page: Inbox) -> Callable[[], Awaitable[Any]]:
    epoch: Any = await valkey.get(hot_keys.EPOCH)
    root = hot_keys.root(epoch.decode())
    ranks = [f"{root}rank:{id_}" for id_ in member.conversation_ids]
    heads = [f"{root}head:{entry.conversation_id}" for entry in page.conversations]

    async def read() -> None:
        pipeline = valkey.pipeline(transaction=False)
        pipeline.get(hot_keys.EPOCH)
        pipeline.hgetall(root + "at")
        pipeline.hgetall(f"{root}own:{member.user_id}")
        pipeline.mget(ranks)
        pipeline.mget(heads)
        await pipeline.execute()

    return read
