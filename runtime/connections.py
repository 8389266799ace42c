"""What the roles of one process share: its connections to the servers, made in order and closed in reverse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import redis.asyncio
import structlog
from psycopg_pool import AsyncConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from domain.errors import DomainError
from migrations.postgres.apply import upgrade
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.progress import Progress
from projections.queries import Queries
from projections.tiers.cold import Cold
from runtime import metrics
from runtime.pool import Pool
from runtime.settings import Settings
from streams.jetstream import JetStream, check_sync_always
from streams.ports import Archive
from streams.topology import Topology

CONNECT_S = 30.0  # for each server to answer when a process starts
POOL_MAX = 10  # Postgres connections of one process: projections, one a worker that writes; queries, snapshots
VALKEY_S = 2.0

log = structlog.get_logger(__name__)


class UnsyncedLog(DomainError):
    """The log's server acknowledges before it syncs: acknowledged messages could be lost. Starting is refused."""

    code = "unsynced_log"


@dataclass(frozen=True, slots=True)
class Connections:
    """Of one process."""

    settings: Settings
    appending: JetStream  # of the writers alone: an ack does not queue behind the deliveries it causes
    jetstream: JetStream
    pool: AsyncConnectionPool
    valkey: redis.asyncio.Redis
    progress: Progress
    queries: Queries
    cold: Cold
    archive: Archive  # what continues the log backwards


@asynccontextmanager
async def connected(settings: Settings, clickhouse: ClickHouse) -> AsyncIterator[Connections]:
    """Connect to the servers, and make sure that streams and tables are there.

    Args:
        clickhouse: opened when something is first read from it, and closed by its maker; starting does not wait for it.

    Raises:
        DomainError: the log was made for another topology, or its server does not sync.
        LogUnavailable, OSError: a server does not answer.
    """
    async with AsyncExitStack() as stack:
        jetstream = await JetStream.connect(settings.nats_url, name=settings.node_id, timeout_s=CONNECT_S)
        stack.push_async_callback(jetstream.close)
        appending = await JetStream.connect(settings.nats_url, name=f"{settings.node_id} writer", timeout_s=CONNECT_S)
        stack.push_async_callback(appending.close)
        await _check_syncs(settings)
        await jetstream.log.ensure(Topology(settings.partitions, settings.replicas))
        await asyncio.to_thread(upgrade, settings.postgres_url)
        pool = Pool(
            settings.postgres_url,
            open=False,
            min_size=2,
            max_size=POOL_MAX,
            name="riverrun",
            # A transaction is begun where one is meant: a query that is one statement is one round trip, not three.
            kwargs={"autocommit": True},
        )
        await pool.open(wait=True, timeout=CONNECT_S)
        stack.push_async_callback(pool.close)
        metrics.show_pool(pool)
        # One try: a redemption of a ticket that is tried twice would not find the ticket.
        valkey = redis.asyncio.Redis.from_url(
            settings.valkey_url, socket_timeout=VALKEY_S, socket_connect_timeout=VALKEY_S, retry=Retry(NoBackoff(), 0)
        )
        stack.push_async_callback(valkey.aclose)
        progress = Progress()
        cold = Cold(clickhouse, partitions=settings.partitions)
        archive = ClickHouseArchive(clickhouse)
        queries = Queries(pool, partitions=settings.partitions, progress=progress, cold=cold)
        yield Connections(settings, appending, jetstream, pool, valkey, progress, queries, cold, archive)


async def _check_syncs(settings: Settings) -> None:
    if settings.allow_unsynced_log:
        log.warning("RIVERRUN_ALLOW_UNSYNCED_LOG is set: a power cut may lose acknowledged messages")
        return
    if not await check_sync_always(settings.nats_monitoring_url):
        raise UnsyncedLog(
            "the NATS server acknowledges before it syncs to disk; set `sync_interval: always` in its jetstream block,"
            " or RIVERRUN_ALLOW_UNSYNCED_LOG=true to run without the promise"
        )
