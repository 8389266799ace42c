"""A sync of a user in 1,000 conversations of which 20 have changed, one of them with a long history."""

import time
from typing import Final

import uvloop
from psycopg_pool import AsyncConnectionPool

from benchmarks.deployment import Deployment
from benchmarks.member import CONVERSATIONS, Member
from benchmarks.report import Figure, Pace
from projections.sync import SyncQueries
from runtime.bench.histogram import Percentiles, percentiles

CHANGED: Final = 20
LIMIT, EVENTS_MAX = 100, 100  # of `GET /v1/sync`
MOST_MS: Final = 25.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """The same sync again and again, from before the changes."""
    taken, resumed, history = uvloop.run(_measured(deployment, pace))
    return Figure(
        name=f"sync with {CHANGED} changed of {CONVERSATIONS:,} conversations, p99",
        unit="ms",
        measured=taken.p99,
        floor=None,
        target=f"≤ {MOST_MS:g} ms",
        met=taken.p99 <= MOST_MS,
        latency_ms=taken,
        notes=f"one of the changed ones has {history:,} events; the same as a session resumes with it: "
        f"p50 {resumed.p50:g} ms, p99 {resumed.p99:g} ms",
    )


async def _measured(deployment: Deployment, pace: Pace) -> tuple[Percentiles, Percentiles, int]:
    pool = AsyncConnectionPool(deployment.postgres_url, min_size=1, max_size=2, open=False)
    await pool.open()
    try:
        async with Member.seated(deployment, quick=pace.seconds < 5) as member:
            cursor = member.cursor
            await member.hear_from(CHANGED)
            sync = SyncQueries(pool)
            syncs: list[float] = []
            resumes: list[float] = []
            warm = time.perf_counter() + pace.warmup_s
            until = warm + pace.seconds
            while (started := time.perf_counter()) < until:
                answer = await sync.sync(member.user_id, cursor, limit=LIMIT, events_max=EVENTS_MAX)
                between = time.perf_counter()
                missed = await sync.missed(member.user_id, cursor, limit=LIMIT)
                if started >= warm:
                    syncs.append(between - started)
                    resumes.append(time.perf_counter() - between)
                if len(answer.conversations) != CHANGED or missed is None or len(missed.events) != CHANGED:
                    raise RuntimeError("a sync did not bring what has changed")
            return percentiles(syncs), percentiles(resumes), member.history
    finally:
        await pool.close()
