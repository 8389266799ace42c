"""What each role does for a partition, while it is this node's (`streams.shares.Duty`)."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg_pool import AsyncConnectionPool

from commands.covering import Covering
from commands.receipts import Receipts
from commands.repository import Repository
from commands.snapshots import PostgresSnapshots
from commands.writer import PartitionWriter
from commands.writers import Writers
from projections.archive.archiver import Archiver
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.audience import MEMBERS_MAX
from projections.fanout import FanoutWorker
from projections.hot_feed import HotFeed
from projections.signals import ReceiptsWorker, SignalForwarder
from projections.tiers.policy import WarmPolicy
from projections.tiers.scheduler import StoreScheduler
from projections.tiers.trimming import Trimmer
from projections.worker import ProjectionWorker
from runtime.connections import Connections
from streams import subjects
from streams.archived import ArchivedLog
from streams.ports import Log


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Future[Any]"]:
    """Run while the context lasts. What is given ends with the first that does, and with its error."""
    tasks = [asyncio.create_task(one) for one in work]
    together = asyncio.gather(*tasks)
    try:
        yield together
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(together, *tasks, return_exceptions=True)


class Projector:
    """The role `projector`: read models of a partition's events, and its part of the hot store."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._workers: dict[tuple[str, int], ProjectionWorker] = {}

    def standing(self, family: str, partition: int) -> dict[str, int]:
        """Up to where a partition's events are applied (`streams.shares.Standing`)."""
        return {"position": self._workers[family, partition].applied_sequence}

    async def rebuild_outdated(self) -> None:
        """Rebuild read models that an older version has made; see `runtime.rebuilding`."""
        from runtime.rebuilding import Servers, rebuild_outdated

        settings = self._connections.settings
        servers = Servers(
            nats_url=settings.nats_url,
            postgres_url=settings.postgres_url,
            clickhouse_url=settings.clickhouse_url,
            partitions=settings.partitions,
            warm_months=settings.warm_months,
        )
        await rebuild_outdated(servers, self._connections.pool, settings.valkey_url)

    @asynccontextmanager
    async def project(self, family: str, partition: int) -> AsyncIterator["asyncio.Future[Any]"]:
        """Project a partition's events."""
        to = self._connections
        # Loaded where it is needed: SQLAlchemy, which declares the tables, is a quarter of the work of a start, and
        # when a gateway comes back it is waited for.
        from projections.catalogue import projections_of

        hot = HotFeed(to.valkey, to.pool, [subjects.stream(family, partition)], partitions=to.settings.partitions)
        worker = ProjectionWorker(
            ArchivedLog(to.jetstream.log, to.archive),
            to.pool,
            projections_of(family),
            family=family,
            partition=partition,
            progress=to.progress,
            on_commit=hot.feed,
        )
        self._workers[family, partition] = worker
        async with running(hot.run(), worker.run()) as work:
            yield work


class Fanout:
    """The role `fanout`: a partition's events, and the signals of its conversations, to whom they concern.

    Attributes:
        signals: to run for as long as the role does.
    """

    def __init__(self, connections: Connections) -> None:
        settings = connections.settings
        self._connections = connections
        self._workers: dict[int, FanoutWorker] = {}
        self._receipts: dict[int, ReceiptsWorker] = {}
        self.signals = SignalForwarder(
            connections.jetstream.bus, self._workers, partitions=settings.partitions, limit=settings.fanout_limit
        )

    def standing(self, family: str, partition: int) -> dict[str, int]:
        """Up to where a partition's events are told (`streams.shares.Standing`)."""
        worker = self._receipts.get(partition) if family == subjects.USER else self._workers.get(partition)
        told = worker.told_sequence if worker else None
        return {} if told is None else {"position": told}

    @asynccontextmanager
    async def fan_out(self, family: str, partition: int) -> AsyncIterator["asyncio.Future[Any]"]:
        """Address a partition's events; of users, make signals of the markers that moved."""
        jetstream, settings = self._connections.jetstream, self._connections.settings
        if family == subjects.USER:
            receipts = self._receipts[partition] = ReceiptsWorker(jetstream.log, jetstream.bus, partition=partition)
            async with running(receipts.run()) as work:
                yield work
            return
        worker = FanoutWorker(
            jetstream.log,
            jetstream.bus,
            self._connections.pool,
            partition=partition,
            limit=settings.fanout_limit,
            members_max=MEMBERS_MAX // settings.partitions,
        )
        async with running(worker.run()) as work:
            # Where it begins is settled before the doors open: what comes after a session has begun will be told.
            await worker.begun.wait()
            self._workers[partition] = worker
            try:
                yield work
            finally:
                del self._workers[partition]


class Archiving:
    """The role `archiver`: a partition's events into ClickHouse."""

    def __init__(self, connections: Connections, clickhouse: ClickHouse) -> None:
        self._connections = connections
        self._clickhouse = clickhouse
        self._archivers: dict[str, Archiver] = {}

    def standing(self, family: str, partition: int) -> dict[str, int]:
        """Up to where a partition's events are archived (`streams.shares.Standing`)."""
        archiver = self._archivers.get(subjects.stream(family, partition))
        return {"position": archiver.archived_sequence} if archiver else {}

    @asynccontextmanager
    async def archive(self, family: str, partition: int) -> AsyncIterator["asyncio.Future[Any]"]:
        """Archive a partition's events."""
        stream = subjects.stream(family, partition)
        every_s = float(self._connections.settings.archive_s)
        archiver = self._archivers[stream] = Archiver(
            self._connections.jetstream.log, self._clickhouse, stream, every_s=every_s
        )
        async with running(archiver.run()) as work:
            yield work


def store_scheduler(connections: Connections, clickhouse: ClickHouse) -> StoreScheduler:
    """What moves months and trims, in every process of the role `archiver`: one of them at a time."""
    settings, log, pool = connections.settings, connections.jetstream.log, connections.pool
    return StoreScheduler(
        pool,
        connections.cold,
        WarmPolicy.parse(settings.warm_months),
        now=lambda: datetime.now(UTC),
        trimmer=trimmer(log, clickhouse, pool, settings.partitions, settings.log_days) if settings.log_days else None,
    )


def trimmer(log: Log, clickhouse: ClickHouse, pool: AsyncConnectionPool, partitions: int, log_days: int) -> Trimmer:
    """What trims the log."""

    def covering(family: str, partition: int) -> Covering:
        return Covering(pool, family=family, partition=partition)

    archive, keep = ClickHouseArchive(clickhouse), timedelta(days=log_days)
    return Trimmer(log, archive, covering, partitions=partitions, keep=keep)


def writers(connections: Connections) -> Writers:
    """The role `writer`."""
    settings = connections.settings
    log, snapshots = connections.appending.log, PostgresSnapshots(connections.pool)
    archived = ArchivedLog(log, connections.archive)

    def make_writer(family: str, partition: int) -> PartitionWriter:
        return PartitionWriter(
            log,
            Repository(log, snapshots, family=family, partition=partition, archived=archived),
            Receipts(connections.queries, archived, partition=partition),
            family=family,
            partition=partition,
            clock_ms=_clock_ms,
            queue_max=settings.writer_queue_max,
            cache_bytes=settings.aggregate_cache_bytes,
        )

    return Writers(connections.jetstream.bus, make_writer)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
