"""The raw floor: what the log's server gives when nothing of Riverrun is in the way.

A group is a subject of a stream configured as Riverrun's own are: on disk, fsynced before the ack if the server is
told to, republished to core NATS. A session is a connection of its own that publishes to the stream and is acked by
it, and is subscribed to what is republished for its groups. It keeps no history for readers, decides nothing, knows no
members, and a session that is away misses what is said meanwhile.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime.bench.adapter import Inbox, Op, Seat, Session
from runtime.bench.errors import AdapterError, TargetError

CONNECT_S: Final = 10.0
LOCAL: Final = "nats://127.0.0.1:4222"


class NatsAdapter:
    """See `adapter.Adapter`.

    Args:
        url: `nats://user:password@host:port`.
        server_pids: the server's processes by name.
    """

    operations = frozenset({Op.SEND, Op.TYPING, Op.RECONNECT})
    ack = "fsynced by JetStream (with sync_interval: always)"

    def __init__(self, url: str | None = None, server_pids: dict[str, int] | None = None) -> None:
        self._url = url or LOCAL
        if urlsplit(self._url).hostname is None:
            raise AdapterError(f"{self._url!r} is no URL of a NATS server, nats://host:port")
        self._pids = dict(server_pids or {})
        self._stream = ""

    async def prepare(self, run: str, users: int, groups: Sequence[Sequence[int]]) -> list[Seat]:
        """See `adapter.Adapter`."""
        self._stream = f"BENCH-{run}"
        config = {
            "name": self._stream,
            "subjects": [f"bench.{run}.*"],
            "storage": "file",
            "num_replicas": 1,
            "discard": "new",
            "allow_atomic": True,
            "republish": {"src": f"bench.{run}.*", "dest": f"bench-live.{run}.{{{{wildcard(1)}}}}"},
        }
        await self._call(f"STREAM.CREATE.{self._stream}", config)
        places: list[dict[int, str]] = [{} for _ in range(users)]
        for number, members in enumerate(groups):
            for member in members:
                places[member][number] = f"{run}.{number}"
        return [Seat(f"bench-{run}-{number}", "", place) for number, place in enumerate(places)]

    async def connect(self, seat: Seat, inbox: Inbox, *, resumable: bool, follows: Session | None = None) -> Session:
        """See `adapter.Adapter`."""
        del resumable, follows  # core NATS has nothing to begin again with
        return await NatsSession.opened(self._url, seat, inbox)

    async def about(self) -> dict[str, str]:
        """See `adapter.Adapter`."""
        async with self._connection() as connection:
            return {"nats-server": str(connection.connected_server_version).strip("<>").rpartition(" v")[2]}

    def pids(self) -> dict[str, int]:
        """See `adapter.Adapter`."""
        return dict(self._pids)

    async def tidy(self) -> None:
        """Delete the stream."""
        if self._stream:
            await self._call(f"STREAM.DELETE.{self._stream}", {})

    async def _call(self, subject: str, body: dict[str, Any]) -> None:
        async with self._connection() as connection:
            answer = await connection.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=CONNECT_S)
        if failure := json.loads(answer.data).get("error"):
            raise TargetError(f"nats-server at {_where(self._url)}: {subject}: {failure.get('description')}")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Client]:
        """A connection for a moment."""
        try:
            connection = await nats.connect(
                self._url,
                connect_timeout=int(CONNECT_S),
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=_ignore,
            )
            try:
                yield connection
            finally:
                await connection.close()
        except (NatsError, OSError) as error:
            raise TargetError(f"nats-server at {_where(self._url)}: {error or type(error).__name__}") from error


async def _ignore(error: Exception) -> None:
    """The call that fails raises it."""


class NatsSession(asyncio.Protocol):
    """See `adapter.Session`. Knows of NATS' protocol what it needs."""

    def __init__(self, url: str, seat: Seat, inbox: Inbox) -> None:
        parts = urlsplit(url)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox = inbox
        self._replies = f"_INBOX.{secrets.token_hex(8)}"
        self._leaving = False
        self._rest = b""
        self._transport: asyncio.Transport
        options = {"user": parts.username, "pass": parts.password, "verbose": False, "headers": True, "lang": "bench"}
        subscriptions = [f"SUB {self._replies}.* 1", *(f"SUB bench-live.{name} 2" for name in seat.groups.values())]
        self._hello = "\r\n".join([f"CONNECT {json.dumps(options)}", *subscriptions, "PING", ""]).encode()

    @classmethod
    async def opened(cls, url: str, seat: Seat, inbox: Inbox) -> Self:
        """A session that is subscribed.

        Raises:
            TargetError: nobody there, or not let in.
        """
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, session = await loop.create_connection(
                    lambda: cls(url, seat, inbox), parts.hostname or "", parts.port or 4222
                )
                await session.ready
        except OSError as error:
            raise TargetError(f"cannot reach nats-server at {_where(url)}: {error.strerror or error}") from error
        except TimeoutError as error:
            raise TargetError(f"no answer from nats-server at {_where(url)} within {CONNECT_S:g} s") from error
        return session

    def send(self, group: str, number: int, text: str) -> None:
        """See `adapter.Session`."""
        self._transport.write(f"PUB bench.{group} {self._replies}.{number} {len(text)}\r\n{text}\r\n".encode())

    def read(self, group: str, number: int) -> None:
        """Not among the operations."""
        raise NotImplementedError

    def typing(self, group: str, number: int) -> None:
        """See `adapter.Session`: published to who listens, unanswered."""
        self._transport.write(f"PUB bench-live.{group} 6\r\ntyping\r\n".encode())
        self._inbox.done(number)

    def keep_alive(self) -> None:
        """The server asks by itself."""

    def drop(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._transport.abort()

    async def close(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._transport.close()
        await self.closed

    # -- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(TargetError("nats-server hung up"))
        elif not self._leaving:
            self._inbox.ended(str(exc or "nats-server hung up"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                start, stop = end + 2, end + 2 + int(words[-1])
                if stop + 2 > size:
                    break
                if line[0] == b"H"[0]:
                    start += int(words[-2])
                self._message(words[1], words[2], data[start:stop])
                at = stop + 2
            else:
                self._control(line)
                at = end + 2
        self._rest = data[at:]

    def _message(self, subject: bytes, subscription: bytes, payload: bytes) -> None:
        if subscription == b"2":
            self._inbox.delivered(payload)
            return
        number = int(subject.rpartition(b".")[2])
        if b'"error":' in payload:
            self._inbox.refused(number, str(json.loads(payload)["error"].get("description", "error")))
        elif payload:
            self._inbox.done(number)
        else:
            self._inbox.refused(number, "no stream listens")

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self._transport.write(b"PONG\r\n")
        elif line == b"PONG":
            if not self.ready.done():
                self.ready.set_result(None)
        elif line.startswith(b"-ERR"):
            error = TargetError(f"nats-server: {line[5:].decode(errors='replace')}")
            if not self.ready.done():
                self.ready.set_exception(error)
            self._transport.abort()


def _where(url: str) -> str:
    """A URL without what is secret in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 4222}"
