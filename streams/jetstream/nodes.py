"""Who is alive, in a NATS KV bucket in memory whose entries expire."""

import asyncio
from collections.abc import Callable

import msgspec

from streams.jetstream import frames
from streams.jetstream.api import MAKE_S, STREAM_DIFFERS, ApiError, call
from streams.jetstream.connection import Connection, NobodyAnswers, RequestError
from streams.jetstream.publisher import Publisher
from streams.jetstream.reader import END_OF_PAGE, NOT_FOUND
from streams.ports import NODE_TTL_S, AppendUnknown, LogUnavailable, Record

BUCKET = "KV_NODES"
KEYS = "$KV.NODES."
OPERATION = "KV-Operation"  # of NATS KV: DEL marks a deleted key
SCAN_S = 0.25  # an expiry tells nobody, so we look: well inside the second that the port allows
SCAN_TIMEOUT_S = 1.0


class JetStreamNodes:
    """See `streams.ports.Nodes`. Node ids are of `A-Za-z0-9_=/-`; every method may raise LogUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._publisher = Publisher(connection)
        self._replicas = 1

    async def ensure(self, replicas: int) -> None:
        """Make the bucket unless there is one. Idempotent."""
        self._replicas = replicas
        await self._make_bucket()

    async def announce(self, node_id: str, data: bytes) -> None:
        """See `streams.ports.Nodes.announce`."""
        await self._put(Record(KEYS + node_id, data))

    async def withdraw(self, node_id: str) -> None:
        """See `streams.ports.Nodes.withdraw`."""
        await self._put(Record(KEYS + node_id, b"", {OPERATION: "DEL"}))

    async def _put(self, record: Record) -> None:
        try:
            await self._publisher.store(record)
        except (LogUnavailable, AppendUnknown):
            # Putting twice is putting once, and the bucket may be gone with a server's memory.
            await self._make_bucket()
            try:
                await self._publisher.store(record)
            except AppendUnknown as error:
                raise LogUnavailable(f"{record.subject}: {error}") from error

    async def watch(self, callback: Callable[[dict[str, bytes]], None]) -> "NodesWatch":
        """See `streams.ports.Nodes.watch`."""
        await self._make_bucket()
        nodes = await self.alive()
        callback(nodes)
        return NodesWatch(self, callback, nodes)

    async def alive(self) -> dict[str, bytes]:
        """All live nodes, by id."""
        request = msgspec.json.encode({"multi_last": [f"{KEYS}>"]})
        try:
            answers, end = await self._connection.ask_page(
                f"$JS.API.DIRECT.GET.{BUCKET}", request, timeout_s=SCAN_TIMEOUT_S
            )
        except NobodyAnswers:
            await self._make_bucket()
            return {}
        except RequestError as error:
            raise LogUnavailable(f"reading the nodes: {error}") from error
        if end.status not in (END_OF_PAGE, NOT_FOUND):
            raise LogUnavailable(f"reading the nodes ended with {dict(end.headers)}")
        stored = ((frames.stored_of(block), data) for data, block in answers)
        return {at.subject.removeprefix(KEYS): data for at, data in stored if OPERATION not in at.headers}

    async def _make_bucket(self) -> None:
        config = {
            "name": BUCKET,
            "subjects": [f"{KEYS}>"],
            "storage": "memory",
            "num_replicas": self._replicas,
            "max_msgs_per_subject": 1,
            "max_age": int(NODE_TTL_S * 1_000_000_000),
            "duplicate_window": 1_000_000_000,  # may not be longer than the age
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }
        try:
            await call(self._connection, f"STREAM.CREATE.{BUCKET}", config, timeout_s=MAKE_S)
        except ApiError as error:
            if error.err_code != STREAM_DIFFERS:  # made with another number of replicas: it does
                raise


class NodesWatch:
    """Scans the bucket and calls back when it has changed. See `streams.ports.Subscription`."""

    def __init__(
        self, nodes: JetStreamNodes, callback: Callable[[dict[str, bytes]], None], known: dict[str, bytes]
    ) -> None:
        self._nodes = nodes
        self._callback = callback
        self._known = known
        self._scanning = asyncio.create_task(self._scan())

    async def close(self) -> None:
        """See `streams.ports.Subscription.close`."""
        self._scanning.cancel()
        await asyncio.gather(self._scanning, return_exceptions=True)

    async def _scan(self) -> None:
        while True:
            await asyncio.sleep(SCAN_S)
            try:
                nodes = await self._nodes.alive()
            except LogUnavailable:
                continue  # unknown is not gone: the last known nodes stand until the log answers again
            if nodes != self._known:
                self._known = nodes
                self._callback(nodes)
