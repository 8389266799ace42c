"""The composition root: makes every object of a process, starts its roles, and takes them down in order.

Roles: `api` (HTTP, WebSocket, SSE), `writer`, `projector`, `fanout`. `riverrun up` runs all of them in one process.
Only this module knows which implementation stands behind a port.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import product

import redis.asyncio
import structlog
from psycopg_pool import AsyncConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from commands.repository import Repository
from commands.routing import Router, WriterNode
from commands.snapshots import PostgresSnapshots
from commands.writer import PartitionWriter
from domain.errors import DomainError
from migrations.postgres.apply import upgrade
from projections.audience import MEMBERS_MAX
from projections.fanout import FanoutWorker
from projections.hot_feed import HotFeed
from projections.progress import Progress
from projections.projection import Projection
from projections.queries import Queries
from projections.signals import ReceiptsWorker, SignalForwarder
from projections.worker import ProjectionWorker
from runtime.collector import spare_the_collector
from runtime.doors import open_doors
from runtime.embedded.clickhouse import ClickHouse
from runtime.services import Services
from runtime.settings import Settings
from streams import subjects
from streams.jetstream import JetStream, check_sync_always
from streams.topology import Topology

ROLES = frozenset({"api", "writer", "projector", "fanout"})
CONNECT_S = 30.0  # for each server to answer when a process starts
POOL_MAX = 10  # Postgres connections of one process: projections, one a worker that writes; queries, snapshots
VALKEY_S = 2.0

log = structlog.get_logger(__name__)


class UnsyncedLog(DomainError):
    """The log's server acknowledges before it syncs: acknowledged messages could be lost. Starting is refused."""

    code = "unsynced_log"


@dataclass(frozen=True, slots=True)
class Process:
    """What the roles of one process share."""

    settings: Settings
    appending: JetStream  # of the writers alone: an ack does not queue behind the deliveries it causes
    jetstream: JetStream
    pool: AsyncConnectionPool
    valkey: redis.asyncio.Redis
    progress: Progress
    queries: Queries
    clickhouse: ClickHouse | None


async def run(
    settings: Settings,
    roles: frozenset[str],
    *,
    clickhouse: ClickHouse | None,
    ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve the roles until `stop` is set, then drain and return.

    Args:
        clickhouse: the cold store, where this process holds it (embedded).
        ready: called once, with the URL of the API, or "" when the process serves none.

    Raises:
        DomainError: the log was made for another topology, or its server does not sync.
        LogUnavailable, OSError: a server does not answer. Nothing was started.
    """
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(_process(settings, clickhouse))
        services = Services()
        stack.push_async_callback(services.stop)
        if "projector" in roles:
            _start_projectors(process, services)
        if "fanout" in roles:
            await _start_fanout(process, services)
        node = _start_writers(process, services) if "writer" in roles else None
        url = ""
        if "api" in roles:
            router = Router(process.jetstream.bus, partitions=settings.partitions, local=node)
            url = await stack.enter_async_context(
                open_doors(
                    settings,
                    services,
                    jetstream=process.jetstream,
                    pool=process.pool,
                    progress=process.progress,
                    queries=process.queries,
                    valkey=process.valkey,
                    dispatcher=router,
                    readiness=_readiness(process, node),
                )
            )
        ready(url)
        spare_the_collector()
        await services.watch(stop)


@asynccontextmanager
async def _process(settings: Settings, clickhouse: ClickHouse | None) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        jetstream = await JetStream.connect(settings.nats_url, name=settings.node_id, timeout_s=CONNECT_S)
        stack.push_async_callback(jetstream.close)
        appending = await JetStream.connect(settings.nats_url, name=f"{settings.node_id} writer", timeout_s=CONNECT_S)
        stack.push_async_callback(appending.close)
        await _check_syncs(settings)
        await jetstream.log.ensure(Topology(settings.partitions, settings.replicas))
        await asyncio.to_thread(upgrade, settings.postgres_url)
        pool = AsyncConnectionPool(
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
        # One try: a redemption of a ticket that is tried twice would not find the ticket.
        valkey = redis.asyncio.Redis.from_url(
            settings.valkey_url, socket_timeout=VALKEY_S, socket_connect_timeout=VALKEY_S, retry=Retry(NoBackoff(), 0)
        )
        stack.push_async_callback(valkey.aclose)
        progress = Progress()
        queries = Queries(pool, partitions=settings.partitions, progress=progress)
        yield Process(settings, appending, jetstream, pool, valkey, progress, queries, clickhouse)


async def _check_syncs(settings: Settings) -> None:
    if settings.allow_unsynced_log:
        log.warning("RIVERRUN_ALLOW_UNSYNCED_LOG is set: a power cut may lose acknowledged messages")
        return
    if not await check_sync_always(settings.nats_monitoring_url):
        raise UnsyncedLog(
            "the NATS server acknowledges before it syncs to disk; set `sync_interval: always` in its jetstream block,"
            " or RIVERRUN_ALLOW_UNSYNCED_LOG=true to run without the promise"
        )


def _start_projectors(process: Process, services: Services) -> None:
    places = list(product(subjects.FAMILIES, range(process.settings.partitions)))
    streams = [subjects.stream(family, partition) for family, partition in places]
    hot = HotFeed(process.valkey, process.pool, streams, partitions=process.settings.partitions)
    services.start("hot store", hot.run())
    for family, partition in places:
        worker = ProjectionWorker(
            process.jetstream.log,
            process.pool,
            _projections(family),
            family=family,
            partition=partition,
            progress=process.progress,
            on_commit=hot.feed,
        )
        services.start(f"projections {worker.stream}", worker.run())


def _projections(family: str) -> tuple[Projection, ...]:
    # Loaded where they are needed: SQLAlchemy, which declares their tables, is a quarter of the work of a start, and
    # when a gateway comes back it is waited for.
    from projections.conversations import ConversationsProjection
    from projections.heads import HeadsProjection
    from projections.markers import MarkersProjection
    from projections.messages import MessagesProjection
    from projections.users import UsersProjection

    if family == subjects.USER:
        return (UsersProjection(), MarkersProjection())
    return (ConversationsProjection(), HeadsProjection(), MessagesProjection())


async def _start_fanout(process: Process, services: Services) -> None:
    settings, log_, bus = process.settings, process.jetstream.log, process.jetstream.bus
    workers = [
        FanoutWorker(
            log_,
            bus,
            process.pool,
            partition=partition,
            limit=settings.fanout_limit,
            members_max=MEMBERS_MAX // settings.partitions,
        )
        for partition in range(settings.partitions)
    ]
    for worker in workers:
        # Where it begins is settled before the doors open: what comes after a session has begun will be told.
        await worker.position()
        services.start(f"fanout {worker.stream}", worker.run())
    for partition in range(settings.partitions):
        receipts = ReceiptsWorker(log_, bus, partition=partition)
        services.start(f"receipts {receipts.stream}", receipts.run())
    services.start("signals", SignalForwarder(bus, workers, limit=settings.fanout_limit).run())


def _start_writers(process: Process, services: Services) -> WriterNode:
    settings, jetstream = process.settings, process.jetstream
    snapshots = PostgresSnapshots(process.pool)

    def make_writer(family: str, partition: int) -> PartitionWriter:
        return PartitionWriter(
            process.appending.log,
            Repository(process.appending.log, snapshots, family=family, partition=partition),
            process.queries,
            family=family,
            partition=partition,
            clock_ms=_clock_ms,
            queue_max=settings.writer_queue_max,
            cache_bytes=settings.aggregate_cache_bytes,
        )

    node = WriterNode(
        settings.node_id,
        jetstream.nodes,
        jetstream.bus,
        make_writer,
        partitions=settings.partitions,
        data=b"writer",
    )
    services.start("writers", node.run())
    return node


def _readiness(process: Process, node: WriterNode | None) -> dict[str, Callable[[], Awaitable[None]]]:
    """What must answer before traffic is welcome, by name. Each raises when it does not."""

    async def log_answers() -> None:
        await process.jetstream.log.last_sequence(subjects.stream(subjects.CONV, 0))

    async def postgres_answers() -> None:
        async with process.pool.connection(timeout=VALKEY_S) as connection:
            await connection.execute("SELECT 1")

    async def valkey_answers() -> None:
        await process.valkey.ping()

    checks: dict[str, Callable[[], Awaitable[None]]] = {
        "log": log_answers,
        "postgres": postgres_answers,
        "valkey": valkey_answers,
    }
    if node is not None:
        checks["writer"] = node.ready
    if process.clickhouse is not None:
        checks["clickhouse"] = process.clickhouse.ready
    return checks


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
