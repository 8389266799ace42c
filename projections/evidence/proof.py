"""The proof: all streams along their chains, and all rows that were made of their events."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg

from projections.archive.clickhouse import ClickHouse
from projections.evidence.chain_walk import ChainWalk
from projections.evidence.findings import ARCHIVE, WARM, Finding, ProofReport
from projections.evidence.parts import check_parts
from projections.evidence.sketches import Stretch
from projections.evidence.typed_rows import TypedRows
from projections.evidence.warm_rows import WarmRows
from projections.projection import Connection
from projections.telling import Counter, Tell
from streams import subjects
from streams.ports import Log

STRETCHES_MAX: Final = 100  # looked at closely in each store


async def prove(
    log: Log,
    clickhouse: ClickHouse,
    postgres_url: str,
    *,
    partitions: int,
    kept: Mapping[str, tuple[int, str]],
    tell: Tell,
) -> ProofReport:
    """Go through everything, while others go on writing.

    Args:
        log: by itself, without its archive.
        kept: the ends of chains that were kept elsewhere, by stream.
        tell: of each phase, and of the events that are gone through.

    Raises:
        LogUnavailable, ArchiveRefused, psycopg.Error: one of the stores cannot be read.
    """
    report = ProofReport()
    streams = [subjects.stream(family, number) for family in subjects.FAMILIES for number in range(partitions)]
    broken = await check_parts(clickhouse, report.findings)
    walks = {
        stream: ChainWalk(log, clickhouse, stream, report.findings, broken=broken, kept=kept.get(stream))
        for stream in streams
    }
    # In this order: what is archived up to here is in the log or was.
    archived = {stream: await walk.archive.end() for stream, walk in walks.items()}
    ends = {stream: max(await log.last_sequence(stream), archived[stream]) for stream in streams}
    positions = sum(ends.values())
    async with _snapshot(postgres_url) as connection:
        warm = WarmRows(connection, report.findings, ends, positions=positions, partitions=partitions)
        typed = TypedRows(clickhouse, report.findings, broken=broken, ends=archived, positions=positions)
        tell("the warm tier's rows", 0, positions)
        await warm.look()
        tell("the archive's rows", 0, positions)
        await typed.look()
        counter = Counter(tell, "events", positions)
        for stream, walk in walks.items():
            async for delivery in walk.believed(archived[stream], ends[stream]):
                counter.passed()
                warm.expect(delivery)
                if delivery.sequence <= archived[stream]:
                    typed.expect(delivery)
        for table, stretch in _bounded(report, ARCHIVE, typed.different()):
            await typed.closely(table, stretch, await walks[stretch.stream].again(stretch.first, stretch.last))
        for model, stretch in _bounded(report, WARM, warm.different()):
            await warm.closely(model, stretch, await walks[stretch.stream].again(stretch.first, stretch.last))
    report.streams = [walk.report for walk in walks.values()]
    report.rows = {**typed.counts, **warm.counts}
    return report


def _bounded(report: ProofReport, store: str, stretches: list[tuple[Any, Stretch]]) -> list[tuple[Any, Stretch]]:
    if len(stretches) > STRETCHES_MAX:
        where = stretches[STRETCHES_MAX][1]
        what = f"from here on {len(stretches) - STRETCHES_MAX:,} more stretches differ, and were not looked at closely"
        report.findings.add(Finding(store, "", where.stream, where.first, what))
    return stretches[:STRETCHES_MAX]


@asynccontextmanager
async def _snapshot(postgres_url: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            # No month leaves meanwhile: a table that is replaced is gone from a snapshot that is older.
            await connection.execute("LOCK TABLE ONLY messages, ONLY changes IN ACCESS SHARE MODE")
            yield connection
