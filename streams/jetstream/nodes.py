"""Who is alive, in a NATS KV bucket whose entries expire."""

import asyncio
from collections.abc import Callable

import msgspec

from streams.jetstream.api import STREAM_DIFFERS, ApiError, call
from streams.jetstream.bus import JetStreamBus
from streams.jetstream.connection import Connection, RequestError
from streams.jetstream.publisher import Publisher
from streams.jetstream.reader import END_OF_PAGE, NOT_FOUND
from streams.ports import NODE_TTL_S, AppendUnknown, LogUnavailable, Record, Signal, Subscription

BUCKET = "KV_NODES"
KEYS = "$KV.NODES."
OPERATION = "KV-Operation"  # of NATS KV: DEL marks a deleted key
SCAN_S = 0.5  # an expiry tells nobody: half of the second that the port allows
SCAN_TIMEOUT_S = 2.0


async def ensure_bucket(connection: Connection, replicas: int) -> None:
    """Make the bucket unless there is one. Idempotent. Raises LogUnavailable."""
    config = {
        "name": BUCKET,
        "subjects": [f"{KEYS}>"],
        "storage": "memory",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "max_age": int(NODE_TTL_S * 1_000_000_000),
        "duplicate_window": 1_000_000_000,  # must not be longer than the age
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    try:
        await call(connection, f"STREAM.CREATE.{BUCKET}", config)
    except ApiError as error:
        if error.err_code != STREAM_DIFFERS:  # made with another number of replicas: it does
            raise


class JetStreamNodes:
    """See `streams.ports.Nodes`. Node ids are of `A-Za-z0-9_=/-`; every method may raise LogUnavailable."""

    def __init__(self, connection: Connection, bus: JetStreamBus) -> None:
        self._connection = connection
        self._bus = bus
        self._publisher = Publisher(connection)

    async def announce(self, node_id: str, data: bytes) -> None:
        """See `streams.ports.Nodes.announce`."""
        await self._put(Record(KEYS + node_id, data))

    async def withdraw(self, node_id: str) -> None:
        """See `streams.ports.Nodes.withdraw`."""
        await self._put(Record(KEYS + node_id, b"", {OPERATION: "DEL"}))

    async def _put(self, record: Record) -> None:
        try:
            await self._publisher.store(record)
        except AppendUnknown as error:
            raise LogUnavailable(f"{record.subject}: {error}") from error
        except LogUnavailable:
            if not self._connection.connected:
                raise
            await ensure_bucket(self._connection, replicas=1)  # it may be gone with a server's memory
            await self._publisher.store(record)

    async def watch(self, callback: Callable[[dict[str, bytes]], None]) -> Subscription:
        """See `streams.ports.Nodes.watch`."""
        watch = NodesWatch(self, callback)
        await watch.start(self._bus)
        return watch

    async def alive(self) -> dict[str, bytes]:
        """All live nodes, by id. Raises LogUnavailable."""
        request = msgspec.json.encode({"multi_last": [f"{KEYS}>"]})
        try:
            answers, end = await self._connection.ask_page(
                f"$JS.API.DIRECT.GET.{BUCKET}", request, timeout_s=SCAN_TIMEOUT_S
            )
        except RequestError as error:
            raise LogUnavailable(f"reading the nodes: {error}") from error
        if end.status not in (END_OF_PAGE, NOT_FOUND):
            raise LogUnavailable(f"reading the nodes ended with {dict(end.headers)}")
        nodes: dict[str, bytes] = {}
        for answer in answers:
            if OPERATION not in answer.headers:
                nodes[answer.headers["Nats-Subject"].removeprefix(KEYS)] = answer.data
        return nodes


class NodesWatch:
    """Scans the bucket twice a second, and at once when a node is heard to come or go."""

    def __init__(self, nodes: JetStreamNodes, callback: Callable[[dict[str, bytes]], None]) -> None:
        self._nodes = nodes
        self._callback = callback
        self._known: dict[str, bytes] = {}
        self._stirred = asyncio.Event()
        self._hearing: Subscription | None = None
        self._scanning: asyncio.Task[None] | None = None

    async def start(self, bus: JetStreamBus) -> None:
        """Call back for the first time, and go on watching. Raises LogUnavailable, BusError."""
        self._hearing = await bus.subscribe(f"{KEYS}>", self._on_signal)
        try:
            try:
                self._known = await self._nodes.alive()
            except LogUnavailable:
                await ensure_bucket(self._nodes._connection, replicas=1)
                self._known = await self._nodes.alive()
            self._callback(dict(self._known))
        except BaseException:
            await self._hearing.close()
            raise
        self._scanning = asyncio.create_task(self._scan())

    async def close(self) -> None:
        """See `streams.ports.Subscription.close`."""
        if self._hearing is not None:
            await self._hearing.close()
        if self._scanning is not None:
            self._scanning.cancel()
            await asyncio.gather(self._scanning, return_exceptions=True)

    def _on_signal(self, signal: Signal) -> None:
        node_id = signal.subject.removeprefix(KEYS)
        if (node_id in self._known) == (OPERATION in signal.headers) or self._known.get(node_id) != signal.data:
            self._stirred.set()

    async def _scan(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SCAN_S):
                    await self._stirred.wait()
            except TimeoutError:
                pass
            self._stirred.clear()
            try:
                nodes = await self._nodes.alive()
            except LogUnavailable:
                continue  # unknown is not gone: the last known nodes stand until the log answers again
            if nodes != self._known:
                self._known = nodes
                self._callback(dict(nodes))
