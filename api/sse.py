"""The SSE door: `GET /v1/stream`, the pushes of a session as server-sent events.

What waits for the client is bounded as a WebSocket's is: the stream of a client that is too slow ends with
`event: close` and the code, and the rest is for it to ask for.
"""

import asyncio
import math
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import devices
from api.context import ApiContext
from api.decoding import decode_query
from api.frames import ALIVE_SSE, Frame, sse_lines
from api.position import Position
from api.schema import StreamQuery
from api.sessions import DeviceInfo, Session

CLOSE_S: Final = 5.0  # for the last bytes; then the connection is left

_encode = msgspec.json.Encoder().encode


class StreamConnected(msgspec.Struct, frozen=True):
    """The first event's data. `cursor`, `recovered`: as in the answer to a WebSocket's `connect`."""

    session_id: str
    user_id: str
    cursor: str
    recovered: bool
    ping_s: float


class Closed(msgspec.Struct, frozen=True):
    """The last event's data: why the stream ended, by the close codes of WebSocket."""

    code: int
    reason: str


class StreamOutlet:
    """See `api.sessions.Outlet`. Holds what the stream has not taken yet.

    Attributes:
        ended: set when the session is.
    """

    door = "sse"
    heard_s = math.inf  # the client cannot speak

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._stirred = asyncio.Event()

    def encoded(self, frame: Frame, position: Position | None) -> bytes:
        """See `api.sessions.Outlet.encoded`. Every event has the cursor it leads to as its id: the client sends the
        last one it has when it comes again."""
        if position is None:
            return frame.sse
        position.told = True
        return b"id: %b\n%b" % (position.token().encode(), frame.sse)

    def told(self, position: Position) -> bytes:
        """See `api.sessions.Outlet.told`: an event of its own, for the id stands for what came before it."""
        return b"id: %b\n%b" % (position.token().encode(), sse_lines("cursor", b"{}"))

    def alive(self) -> bytes:
        """See `api.sessions.Outlet.alive`."""
        return ALIVE_SSE

    def try_write(self, data: bytes, limit_bytes: int) -> bool:
        """See `api.sessions.Outlet.try_write`."""
        if self.ended.is_set():
            return True
        if self._pending_bytes + len(data) > limit_bytes:
            return False
        self._put(data)
        return True

    def end(self, code: int, reason: str = "") -> None:
        """See `api.sessions.Outlet.end`."""
        if not self.ended.is_set():
            self._put(sse_lines("close", _encode(Closed(int(code), reason))))
            self.ended.set()

    def _put(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._stirred.set()

    async def take(self) -> bytes:
        """All that waits, as soon as there is something; empty after the end."""
        while not self._pending and not self.ended.is_set():
            self._stirred.clear()
            await self._stirred.wait()
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return data


class EventStream(Response):
    """The body: what the session pushes, until it or the client ends it."""

    media_type = "text/event-stream"

    def __init__(self, session: Session, outlet: StreamOutlet, connected: StreamConnected) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # nginx would hold events back
        del self.headers["Content-Length"]
        self._session = session
        self._outlet = outlet
        self._connected = connected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, outlet = self._session, self._outlet
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_disconnected(receive))
        ending = asyncio.create_task(outlet.ended.wait())
        try:
            await asyncio.wait([writing, leaving, ending], return_when=asyncio.FIRST_COMPLETED)
            if outlet.ended.is_set() and not leaving.done():
                await asyncio.wait([writing, leaving], timeout=CLOSE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.close(None)
            for task in (writing, leaving, ending):
                task.cancel()
            await asyncio.gather(writing, leaving, ending, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        cursor, first = self._connected.cursor.encode(), sse_lines("connected", _encode(self._connected))
        self._session.start(b"id: %b\n%b" % (cursor, first))
        while data := await self._outlet.take():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stream_endpoint(request: Request) -> Response:
    """A stream of events.

    Raises:
        Unauthenticated, TooManySessions, Unavailable: before it began.
    """
    context: ApiContext = request.app.state.context
    ticket = request.query_params.get("ticket")
    if ticket is not None and "authorization" not in request.headers:
        principal = await context.tickets.redeem(ticket)
    else:
        principal = context.authenticator.authenticate(request)
    query = decode_query([pair for pair in request.query_params.multi_items() if pair[0] != "ticket"], StreamQuery)
    gateway, outlet = context.gateway, StreamOutlet()
    device = DeviceInfo(query.device_id, query.device_kind, principal.issued_at)
    session = gateway.admit(principal.user_id, outlet, device=device, expires_at=principal.expires_at)
    try:
        await gateway.listen(session)
        await devices.enter(context, principal, device)
        cursor, recovered = await gateway.connect(session, request.headers.get("last-event-id") or query.cursor, {})
    except BaseException:
        session.close(None)
        raise
    connected = StreamConnected(session.id, session.user_id, cursor, recovered=recovered, ping_s=gateway.limits.ping_s)
    return EventStream(session, outlet, connected)
