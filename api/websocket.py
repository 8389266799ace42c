"""The WebSocket door: a connection's handshake, its requests, and their answers in order.

What the client sends is handled as it is read, without a task: a send is on its way to its writer before the next
request is looked at. Answers of one conversation leave in the order of their requests.
"""

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Any, Final

import structlog

from api import devices
from api.auth import IN_URL, Principal
from api.context import ApiContext
from api.decoding import decode
from api.envelope import Connected, ConnectRequest, Violation, parsed
from api.errors import ApiError, Unauthenticated, error_fields, problem
from api.frames import ALIVE, Frame, answer_frame, cursor_frame, error_frame
from api.handshake import Handshake, refused
from api.methods import METHODS, Caller
from api.position import Position
from api.refusals import Crowded, Draining, TooManySessions
from api.schema import MessageAck
from api.sessions import CloseCode, DeviceInfo, Session
from api.socket import Socket
from commands.messages import MessageResult
from domain.errors import DomainError, Invalid, Revoked, Unavailable
from domain.ids import parse_id

SUBPROTOCOL: Final = "riverrun.v1.json"
CONNECT_S: Final = 10.0  # within which the first request has come
IN_FLIGHT_MAX: Final = 256  # requests of one session; reading stops at it: the client waits, nothing is refused
INTERNAL: Final = 1011
QUOTED_MAX: Final = 40

log = structlog.get_logger(__name__)
level = logging.getLogger(__name__)  # asked before a line of debugging is made: structlog makes it first


class WebSocketDoor:
    """Lets clients in: see `api.server.Door`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def open(self, handshake: Handshake, socket: Socket) -> None:
        """See `api.server.Door.open`."""
        asked, offered = handshake.asked, handshake.subprotocols
        if offered and SUBPROTOCOL not in offered:
            refusal = problem(Invalid(f"this server speaks the subprotocol {SUBPROTOCOL}"), status=400)
            refusal.status_code = 400
            socket.refuse(refused(refusal))
            return
        accepted = handshake.accepted(SUBPROTOCOL if offered else None)
        named: Principal | None = None
        try:
            if "authorization" in asked.headers or any(name in asked.query_params for name in IN_URL):
                named = self._context.authenticator.authenticate(asked)
        except Unauthenticated as error:
            if any(name in asked.query_params for name in IN_URL):
                socket.refuse(refused(problem(error)))
                return
            # Accepted first: a browser sees close codes, but not the status of a handshake.
            socket.accept(accepted, _nobody)
            socket.end(CloseCode.BAD_TOKEN, error.detail)
            return
        connection = Connection(self._context, socket, accepted, named)
        ticket = asked.query_params.get("ticket")
        if named is None and ticket is not None:
            connection.redeem(ticket)
        else:
            connection.begin()


def _nobody() -> None:
    """For a connection that nobody has begun to use."""


class SocketOutlet:
    """See `api.sessions.Outlet`."""

    door = "websocket"

    __slots__ = ("_socket", "end", "try_write")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self.try_write = socket.try_write
        self.end = socket.end

    @property
    def heard_s(self) -> float:
        """See `api.sessions.Outlet.heard_s`."""
        return self._socket.heard_s

    def encoded(self, frame: Frame, position: Position | None) -> bytes:
        """See `api.sessions.Outlet.encoded`."""
        return frame.websocket

    def told(self, position: Position) -> bytes:
        """See `api.sessions.Outlet.told`."""
        return cursor_frame(position.token())

    def alive(self) -> bytes:
        """See `api.sessions.Outlet.alive`."""
        return ALIVE


class _Answer:
    """A place in the order of a lane's answers."""

    __slots__ = ("frame",)

    def __init__(self) -> None:
        self.frame: bytes | None = None


class Connection:
    """What one client asks.

    Args:
        accepted: the response that accepts the handshake.
        named: whom the handshake names, if it does; a token in `connect` goes before it.
    """

    __slots__ = (
        "_accepted",
        "_beginning",
        "_connected",
        "_context",
        "_in_flight",
        "_lanes",
        "_late",
        "_loop",
        "_named",
        "_principal",
        "_reading",
        "_session",
        "_socket",
        "_waiting",
    )

    def __init__(self, context: ApiContext, socket: Socket, accepted: bytes, named: Principal | None) -> None:
        self._context = context
        self._socket = socket
        self._accepted = accepted
        self._named = named
        self._principal: Principal
        self._session: Session | None = None
        self._loop = asyncio.get_running_loop()
        self._beginning: asyncio.Task[None] | None = None
        self._connected = False
        self._late: asyncio.TimerHandle | None = None
        self._waiting: list[bytes] = []  # requests of frames already read, the next one last
        self._in_flight = 0
        self._lanes: dict[str, deque[_Answer]] = {}
        self._reading: set[asyncio.Future[Any]] = set()

    # -- requests -------------------------------------------------------------------------------------------

    def take(self, text: bytes) -> None:
        """One frame: one or more requests, one a line."""
        lines = [line for line in text.split(b"\n") if line and not line.isspace()]
        if not lines:
            self._end(CloseCode.PROTOCOL_ERROR, "a frame holds JSON objects, one a line")
        self._waiting[:0] = reversed(lines)
        self._go_on()

    def _go_on(self) -> None:
        """Handle what waits, as far as it may be handled now; read on, or not, accordingly."""
        while self._waiting and self._may_go_on:
            line = self._waiting.pop()
            try:
                self._handle(*parsed(line))
            except Violation as violation:
                self._end(CloseCode.PROTOCOL_ERROR, str(violation))
            except Exception:
                log.exception("a request failed")
                self._socket.end(INTERNAL, "internal error")
            if self._socket.closing:
                self._waiting.clear()
        if not self._may_go_on:
            self._socket.hold()

    @property
    def _may_go_on(self) -> bool:
        return self._beginning is None and self._in_flight < IN_FLIGHT_MAX

    def _resume(self) -> None:
        self._go_on()
        if self._may_go_on and not self._socket.closing:
            self._socket.resume()

    def _handle(self, request_id: bytes, method: str, raw: bytes) -> None:
        if self._session is None or not self._connected:
            if method != "connect":
                raise Violation("the first request is connect")
            self._in_time()
            self._beginning = self._loop.create_task(self._connect(request_id, raw))
            return
        if method == "connect":
            self._refuse(request_id, Invalid("this session is connected already"))
            raise Violation("connect comes once")
        asked = METHODS.get(method)
        if asked is None:
            known = f"unknown method {_quoted(method)}; known: connect, {', '.join(METHODS)}"
            self._refuse(request_id, Invalid(known))
            return
        try:
            request = decode(raw, asked.shape)
        except Invalid as refusal:
            self._refuse(request_id, refusal)
            return
        if method != "ping":
            self._context.gateway.presence.active(self._session)
        caller = Caller(self._context, self._principal, self._session, f"{self._session.id}.{request_id.decode()}")
        answering = asked.answer(caller, request)
        future = asyncio.ensure_future(answering)
        if future is not answering:  # a task of this session's; what was a future is on its way whatever becomes of it
            self._reading.add(future)
            future.add_done_callback(self._reading.discard)
        self._await_answer(request_id, asked.lane(request), future)

    def _refuse(self, request_id: bytes, refusal: Invalid) -> None:
        assert self._session is not None
        self._session.write(error_frame(request_id, error_fields(refusal)))

    # -- answers --------------------------------------------------------------------------------------------

    def _await_answer(self, request_id: bytes, lane: str, future: "asyncio.Future[Any]") -> None:
        answer = _Answer()
        self._lanes.setdefault(lane, deque()).append(answer)
        self._in_flight += 1
        future.add_done_callback(partial(self._on_answer, request_id, lane, answer))

    def _on_answer(self, request_id: bytes, lane_name: str, answer: _Answer, future: "asyncio.Future[Any]") -> None:
        assert self._session is not None
        answer.frame = _frame_of(request_id, future, self._session.id)
        lane = self._lanes[lane_name]
        while lane and (frame := lane[0].frame) is not None:
            self._session.write(frame)
            lane.popleft()
        if not lane:
            del self._lanes[lane_name]
        was_full = self._in_flight >= IN_FLIGHT_MAX
        self._in_flight -= 1
        if was_full:
            self._resume()

    # -- the session's beginning and end --------------------------------------------------------------------

    def begin(self) -> None:
        """Accept the handshake, and listen for `connect`."""
        self._late = self._loop.call_later(CONNECT_S, self._on_late)
        self._socket.accept(self._accepted, self.gone)
        self._accepted = b""
        self._socket.listen(self.take)

    def redeem(self, ticket: str) -> None:
        """Begin with a ticket in place of a token."""
        self._beginning = self._loop.create_task(self._redeem(ticket))

    async def _redeem(self, ticket: str) -> None:
        try:
            self._named = await self._context.tickets.redeem(ticket)
        except Unauthenticated as error:
            self._socket.accept(self._accepted, self.gone)
            self._socket.end(CloseCode.BAD_TOKEN, error.detail)
            return
        except Unavailable as error:
            self._socket.refuse(refused(problem(error)))
            return
        self._beginning = None
        self.begin()

    async def _connect(self, request_id: bytes, raw: bytes) -> None:
        """Answer `connect`, and go on; or say why not, and close."""
        gateway = self._context.gateway
        try:
            request = decode(raw, ConnectRequest)
            versions = {parse_id(id_, field="versions"): version for id_, version in request.versions.items()}
            self._principal = self._authenticated(request)
            session = self._session = gateway.admit(
                self._principal.user_id,
                SocketOutlet(self._socket),
                device=DeviceInfo(request.device_id, request.device_kind, self._principal.issued_at),
                expires_at=self._principal.expires_at,
            )
            await gateway.listen(session)
            await devices.enter(self._context, self._principal, session.device)
            cursor, recovered = await gateway.connect(session, request.cursor, versions)
        except (DomainError, ApiError) as refusal:
            self._socket.try_write(error_frame(request_id, error_fields(refusal)), gateway.limits.buffer_bytes)
            self._end(_close_code(refusal), str(refusal))
            return
        except Exception:
            log.exception("a session could not be connected")
            self._socket.end(INTERNAL, "internal error")
            return
        connected = Connected(session.id, session.user_id, cursor, recovered=recovered, ping_s=gateway.limits.ping_s)
        session.start(answer_frame(request_id, connected))
        self._connected = True
        self._beginning = None
        self._resume()

    def _authenticated(self, request: ConnectRequest) -> Principal:
        if request.token is not None:
            return self._context.authenticator.verify(request.token)
        if self._named is None:
            raise Unauthenticated("connect with a token", token_given=False)
        return self._named

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _on_late(self) -> None:
        self._end(CloseCode.PROTOCOL_ERROR, f"no connect within {CONNECT_S:g} s")

    def _end(self, code: CloseCode, reason: str) -> None:
        if self._session is not None:
            self._session.close(code, reason)
        self._socket.end(code, reason)

    def gone(self) -> None:
        """The connection has ended. Sends on their way stay on their way; reads are dropped."""
        self._in_time()
        self._waiting.clear()
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        for reading in tuple(self._reading):
            reading.cancel()
        if self._session is not None:
            self._session.close(None)


def _frame_of(request_id: bytes, future: "asyncio.Future[Any]", session_id: str) -> bytes:
    """The frame of an outcome."""
    error = Unavailable("the session has ended") if future.cancelled() else future.exception()
    if level.isEnabledFor(logging.DEBUG):
        outcome = "ok" if error is None else getattr(error, "code", "internal")
        log.debug("request answered", outcome=outcome, correlation_id=f"{session_id}.{request_id.decode()}")
    if error is None:
        result = future.result()
        return answer_frame(request_id, MessageAck.of(result) if isinstance(result, MessageResult) else result)
    if not isinstance(error, DomainError | ApiError):
        correlation_id = f"{session_id}.{request_id.decode()}"
        log.error("a request failed", correlation_id=correlation_id, error=repr(error), exc_info=error)
    return error_frame(request_id, error_fields(error if isinstance(error, Exception) else RuntimeError()))


def _close_code(refusal: Exception) -> CloseCode:
    """How a session ends that was not let in."""
    if isinstance(refusal, Unauthenticated):
        return CloseCode.BAD_TOKEN
    if isinstance(refusal, Revoked):
        return CloseCode.REVOKED
    if isinstance(refusal, TooManySessions):
        return CloseCode.TOO_MANY_SESSIONS
    if isinstance(refusal, Draining):
        return CloseCode.DRAINING
    if isinstance(refusal, Crowded):
        return CloseCode.CROWDED
    return CloseCode.POSITION_LOST if isinstance(refusal, Unavailable) else CloseCode.PROTOCOL_ERROR


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED_MAX else text[:QUOTED_MAX] + "…")
