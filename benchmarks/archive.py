"""Archiving a log into an empty ClickHouse, against inserts of the same rows: the same blocks, built beforehand, by the
same client with the same settings. Log and ClickHouse are servers of its own, as `riverrun up` runs them."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import uvloop

from benchmarks.deployment import Deployment
from benchmarks.rebuild import fill, nats_server
from benchmarks.report import Figure, Pace
from projections.archive.archiver import Archiver
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from runtime.collector import spare_the_collector
from runtime.embedded.child import free_port
from runtime.embedded.clickhouse import ClickHouseServer
from runtime.settings import Settings
from streams import subjects
from streams.jetstream import JetStream
from streams.ports import Log
from streams.topology import Topology

LEAST: Final = 0.5
EVENTS: Final = 120_000
EVENTS_QUICK: Final = 30_000
STREAMS: Final = (subjects.stream(subjects.CONV, 0), subjects.stream(subjects.USER, 0))
POLL_S: Final = 0.02
EVERY_S: Final = 0.25  # shorter than the setting is: so long the last batch waits to be full

Block: TypeAlias = tuple[str, Mapping[str, Sequence[Any]]]


class Took(NamedTuple):
    """Seconds by the clock, and of this process on a core."""

    seconds: float
    cpu_s: float


class Recording(ClickHouse):
    """A ClickHouse that keeps what is inserted, to insert it once more."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.blocks: list[Block] = []

    async def insert(self, table: str, columns: Mapping[str, Sequence[Any]], *, token: str) -> None:
        """See `ClickHouse.insert`."""
        self.blocks.append((table, columns))
        await super().insert(table, columns, token=token)


def run(_: Deployment, pace: Pace) -> Figure:
    """A log archived once, stream after stream; the floor inserts the blocks that came of it into the same tables."""
    events = EVENTS if pace.seconds >= 5 else EVENTS_QUICK
    archived, inserted, blocks = uvloop.run(_measured(events))
    measured, floor = events / archived.seconds, events / inserted.seconds
    rows = sum(len(next(iter(columns.values()))) for _, columns in blocks)
    return Figure(
        name="archiving, from the log into ClickHouse",
        unit="events/s",
        measured=measured,
        floor=floor,
        target=f"≥ {LEAST:g} of the floor",
        met=measured >= LEAST * floor,
        notes=f"{events:,} events, {rows:,} rows, {len(blocks):,} inserts in {archived.seconds:.1f} s; the floor makes "
        f"the same inserts, already built, in {inserted.seconds:.1f} s. CPU time of the process an event, without the "
        f"servers': {archived.cpu_s / events * 1e6:.0f} µs, of which the inserts {inserted.cpu_s / events * 1e6:.0f}",
    )


async def _measured(events: int) -> tuple[Took, Took, Sequence[Block]]:
    async with nats_server() as nats_url, clickhouse_server() as clickhouse_url:
        jetstream = await JetStream.connect(nats_url, name="riverrun-bench")
        clickhouse = Recording(clickhouse_url)
        try:
            await jetstream.log.ensure(Topology())
            await fill(jetstream.log, events)
            await clickhouse.ready()
            spare_the_collector()  # as every process of Riverrun's does
            archived = await _took(archive(jetstream.log, clickhouse, STREAMS))
            blocks = tuple(clickhouse.blocks)
            for table in {table for table, _ in blocks}:
                await clickhouse.command(f"TRUNCATE TABLE {table}")
            inserted = await _took(_insert(clickhouse, blocks))
        finally:
            await clickhouse.close()
            await jetstream.close()
    return archived, inserted, blocks


async def _took(work: Awaitable[None]) -> Took:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await work
    return Took(time.perf_counter() - began_s, time.process_time() - began_cpu_s)


async def _insert(clickhouse: ClickHouse, blocks: Sequence[Block]) -> None:
    for number, (table, columns) in enumerate(blocks):
        await ClickHouse.insert(clickhouse, table, columns, token=f"floor:{number}")


async def archive(log: Log, clickhouse: ClickHouse, streams: Sequence[str]) -> None:
    """Archive streams to their ends, one after the other."""
    archived = ClickHouseArchive(clickhouse)
    for stream in streams:
        end = await log.last_sequence(stream)
        archiver = Archiver(log, clickhouse, stream, every_s=EVERY_S)
        task = asyncio.create_task(archiver.run())
        try:
            while archiver.archived_sequence < end:
                await asyncio.wait([task], timeout=POLL_S)
                if task.done():
                    task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if await archived.position(stream) != end:
            raise RuntimeError(f"the archive does not end where {stream} ends")


@asynccontextmanager
async def clickhouse_server() -> AsyncIterator[str]:
    """A ClickHouse of its own, chDB in a process, as `riverrun up` runs it."""
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder)
        server = ClickHouseServer(
            directory / "clickhouse", directory / "clickhouse.log", free_port(), Settings().analyst_limits
        )
        await server.child.start()
        try:
            yield server.url
        finally:
            await server.child.stop()
