"""The WebSocket door: a connection's handshake, its requests, and their answers in order.

What the client sends is handled as it is read, without a task: a send is on its way to its writer before the next
request is looked at. Answers of one conversation leave in the order of their requests.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Any, Final

import structlog
from starlette.websockets import WebSocket

from api import devices
from api.auth import IN_URL, Principal
from api.context import ApiContext
from api.decoding import decode
from api.envelope import Connected, ConnectRequest, Violation, parsed
from api.errors import ApiError, Unauthenticated, error_fields, problem
from api.frames import ALIVE, Frame, answer_frame, cursor_frame, error_frame
from api.gateway import Draining, TooManySessions
from api.methods import METHODS, Caller
from api.position import Position
from api.schema import MessageAck
from api.server import EXTENSION, SocketProtocol
from api.sessions import CloseCode, DeviceInfo, Session
from commands.messages import MessageResult
from domain.errors import DomainError, Invalid, Revoked, Unavailable
from domain.ids import parse_id

SUBPROTOCOL: Final = "riverrun.v1.json"
CONNECT_S: Final = 10.0  # within which the first request has come
IN_FLIGHT_MAX: Final = 256  # requests of one session; reading stops at it: the client waits, nothing is refused
INTERNAL: Final = 1011
QUOTED_MAX: Final = 40

log = structlog.get_logger(__name__)


async def websocket_endpoint(websocket: WebSocket) -> None:
    """One connection, from its handshake to its end."""
    context: ApiContext = websocket.app.state.context
    offered: list[str] = websocket.scope["subprotocols"]
    if offered and SUBPROTOCOL not in offered:
        refusal = problem(Invalid(f"this server speaks the subprotocol {SUBPROTOCOL}"), status=400)
        refusal.status_code = 400
        await websocket.send_denial_response(refusal)
        return
    try:
        principal = await _principal(context, websocket)
        refused = None
    except Unauthenticated as error:
        if any(name in websocket.query_params for name in IN_URL):
            await websocket.send_denial_response(problem(error))
            return
        principal, refused = None, error
    except Unavailable as error:
        await websocket.send_denial_response(problem(error))
        return
    await websocket.accept(subprotocol=SUBPROTOCOL if offered else None)
    socket: SocketProtocol = websocket.scope["extensions"][EXTENSION]
    if refused is not None:  # accepted first: a browser sees close codes, but not the status of a handshake
        socket.end(CloseCode.BAD_TOKEN, refused.detail)
        return
    connection = Connection(context, socket, principal)
    socket.listen(connection.take)
    try:
        await websocket.receive()  # texts go to `take`: what comes here is the end
    finally:
        await connection.gone()


async def _principal(context: ApiContext, websocket: WebSocket) -> Principal | None:
    """Who the handshake names, by a header or a ticket; `None` when it names nobody.

    Raises:
        Unauthenticated, Unavailable.
    """
    if "authorization" in websocket.headers or any(name in websocket.query_params for name in IN_URL):
        return context.authenticator.authenticate(websocket)
    ticket = websocket.query_params.get("ticket")
    return await context.tickets.redeem(ticket) if ticket is not None else None


class SocketOutlet:
    """See `api.sessions.Outlet`."""

    door = "websocket"

    def __init__(self, socket: SocketProtocol) -> None:
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
        principal: whom the handshake named, if it did; a token in `connect` goes before it.
    """

    def __init__(self, context: ApiContext, socket: SocketProtocol, principal: Principal | None) -> None:
        self._context = context
        self._socket = socket
        self._named = principal
        self._principal: Principal
        self._session: Session | None = None
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Task[None] | None = None
        self._connected = False
        self._late = self._loop.call_later(CONNECT_S, self._on_late)
        self._waiting: deque[bytes] = deque()  # requests of frames already read
        self._in_flight = 0
        self._lanes: dict[str, deque[_Answer]] = {}
        self._reading: set[asyncio.Future[Any]] = set()

    # -- requests -------------------------------------------------------------------------------------------

    def take(self, text: bytes) -> None:
        """One frame: one or more requests, one a line."""
        lines = [line for line in text.split(b"\n") if line and not line.isspace()]
        if not lines:
            self._end(CloseCode.PROTOCOL_ERROR, "a frame holds JSON objects, one a line")
        self._waiting.extend(lines)
        self._go_on()

    def _go_on(self) -> None:
        """Handle what waits, as far as it may be handled now; read on, or not, accordingly."""
        while self._waiting and self._may_go_on:
            line = self._waiting.popleft()
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
        return (self._connecting is None or self._connected) and self._in_flight < IN_FLIGHT_MAX

    def _resume(self) -> None:
        self._go_on()
        if self._may_go_on and not self._socket.closing:
            self._socket.resume()

    def _handle(self, request_id: bytes, method: str, raw: bytes) -> None:
        if self._session is None or not self._connected:
            if method != "connect":
                raise Violation("the first request is connect")
            self._late.cancel()
            self._connecting = self._loop.create_task(self._connect(request_id, raw))
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
        self._resume()

    def _authenticated(self, request: ConnectRequest) -> Principal:
        if request.token is not None:
            return self._context.authenticator.verify(request.token)
        if self._named is None:
            raise Unauthenticated("connect with a token", token_given=False)
        return self._named

    def _on_late(self) -> None:
        self._end(CloseCode.PROTOCOL_ERROR, f"no connect within {CONNECT_S:g} s")

    def _end(self, code: CloseCode, reason: str) -> None:
        if self._session is not None:
            self._session.close(code, reason)
        self._socket.end(code, reason)

    async def gone(self) -> None:
        """The connection has ended. Sends on their way stay on their way; reads are dropped."""
        self._late.cancel()
        self._waiting.clear()
        tasks: list[asyncio.Future[Any]] = [*self._reading]
        if self._connecting is not None:
            tasks.append(self._connecting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            self._session.close(None)


def _frame_of(request_id: bytes, future: "asyncio.Future[Any]", session_id: str) -> bytes:
    """The frame of an outcome."""
    error = Unavailable("the session has ended") if future.cancelled() else future.exception()
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
    return CloseCode.POSITION_LOST if isinstance(refusal, Unavailable) else CloseCode.PROTOCOL_ERROR


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED_MAX else text[:QUOTED_MAX] + "…")
