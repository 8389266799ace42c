"""The socket under the doors: uvicorn, with a WebSocket protocol that is written to and read from without a task.

A session's pushes go straight into the transport's buffer (`SocketProtocol.try_write`), and what a client sends
is handed over as it is read (`SocketProtocol.listen`). Neither ever waits: who is too slow is told so, not waited for.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode as LibraryCode
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from api.sessions import CloseCode

FRAME_MAX_BYTES: Final = 64 * 1024  # protocol.md; the fragments of a message together
CLOSE_S: Final = 5.0  # for the last bytes and the peer's goodbye; then the connection is cut
SHUTDOWN_S: Final = 5  # HTTP requests under way get this long to end
KEEP_ALIVE_S: Final = 75  # longer than the pauses of a client that pages through history
BACKLOG: Final = 2048
UNREAD_MS: Final = 60_000  # after which the system cuts a connection whose peer takes nothing
EXTENSION: Final = "riverrun.socket"  # where the ASGI scope holds the `SocketProtocol`


class _Connection(ServerProtocol):
    """The library's protocol machine, with this protocol's close codes where it has one of its own."""

    def fail(self, code: int, reason: str = "") -> None:
        if code == LibraryCode.MESSAGE_TOO_BIG:
            code, reason = CloseCode.FRAME_TOO_LARGE, f"a message is at most {FRAME_MAX_BYTES:,} bytes"
        super().fail(code, reason)


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection.

    Attributes:
        heard_s: loop time of the last bytes that came.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Connection(max_size=FRAME_MAX_BYTES, logger=logging.getLogger("uvicorn.error"))
        self.heard_s = self.loop.time()
        self._on_text: Callable[[bytes], None] | None = None
        self._early: deque[bytes] = deque()  # at most what one read held: reading is paused meanwhile
        self._held = True

    # -- for the session ------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether it has ended, or is about to."""
        return self.close_sent or self.transport.is_closing()

    def listen(self, on_text: Callable[[bytes], None]) -> None:
        """Hand every text message to `on_text`, valid UTF-8, in order, those that came before first."""
        self._on_text = on_text
        self.resume()

    def hold(self) -> None:
        """Stop reading until `resume`; what was read already waits."""
        self._held = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Hand over what waits, and read on."""
        self._held = False
        while self._early and not self._held and self._on_text is not None:
            text = self._early.popleft()
            if not self.close_sent:
                self._on_text(text)
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def try_write(self, data: bytes, limit_bytes: int) -> bool:
        """Write whole frames, unless more than `limit_bytes` would then wait for the client. Never waits."""
        transport = self.transport
        if self.closing:
            return True  # nobody is there to be too slow
        if transport.get_write_buffer_size() + len(data) > limit_bytes:
            return False
        transport.write(data)
        return True

    def end(self, code: int, reason: str = "") -> None:
        """Close with a code, once; cut the connection if the client does not follow within `CLOSE_S`."""
        if self.closing:
            return
        self.conn.send_close(code, reason)
        self._say_goodbye(code, reason)
        self._early.clear()
        if self._held:
            self.resume()  # to read the client's goodbye

    def _say_goodbye(self, code: int, reason: str) -> None:
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._cut_later()

    def _cut_later(self) -> None:
        if self.close_timer is None and not self.disconnected:
            # Not `close`, which would wait for ever for a client that does not read.
            self.close_timer = self.loop.call_later(CLOSE_S, self.transport.abort)

    # -- uvicorn's side -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.heard_s = self.loop.time()
        super().data_received(data)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # before the app's task has run

    def send_receive_event_to_app(self) -> None:
        data = bytes(self.frames[0]) if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type != "text":
            self.end(CloseCode.PROTOCOL_ERROR, "text frames only")
        elif not _is_utf8(data):
            self.end(CloseCode.PROTOCOL_ERROR, "a text frame is UTF-8")
        elif self._held or self._on_text is None:
            self._early.append(data)
            self.transport.pause_reading()
        else:
            self._on_text(data)

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._cut_later()

    def handle_parser_exception(self) -> None:
        """The close frame goes out, and what the client still sends is read and dropped: closing at once
        would reset the connection, and the client might never see the code."""
        if self.close_sent:
            return
        assert self.conn.close_sent is not None or self.conn.eof_sent
        sent = self.conn.close_sent
        code, reason = (sent.code, sent.reason) if sent is not None else (LibraryCode.ABNORMAL_CLOSURE, "")
        self._say_goodbye(code, reason)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Drainable(Protocol):
    """What a server empties before it stops: the gateway."""

    async def drain(self, over_s: float) -> None:
        """Close all sessions, spread over a time in seconds, and let none in any more."""
        ...


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's, not this server's."""
        yield


class Server:
    """Serves an ASGI application: `serve` until cancelled, `drain` before that.

    Args:
        gateway: emptied first, so that clients hear 3001 at different times and not 1012 at once.
    """

    def __init__(self, app: ASGIApp, gateway: Drainable) -> None:
        self._gateway = gateway
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws=SocketProtocol,
                ws_max_size=FRAME_MAX_BYTES,
                ws_ping_interval=None,  # the protocol has its own
                ws_per_message_deflate=False,  # 5.8 µs a send instead of 2.5, and frames could not be shared
                lifespan="off",
                log_config=None,
                log_level="warning",  # uvicorn says of each socket that it was accepted
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )

    @property
    def started(self) -> bool:
        """Whether connections are accepted."""
        return self._uvicorn.started and not self._uvicorn.should_exit

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Accept on bound sockets until cancelled; then let requests under way end. The sockets are closed after."""
        serving = asyncio.create_task(self._uvicorn.serve(sockets=sockets))
        try:
            await asyncio.shield(serving)
        finally:
            self._uvicorn.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            for bound in sockets:
                bound.close()

    async def drain(self, over_s: float) -> None:
        """Accept no more, and close all sessions, spread over a time in seconds."""
        if self._uvicorn.started:
            for listener in self._uvicorn.servers:
                listener.close()
        await self._gateway.drain(over_s)


def bind(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 takes one that the OS gives.

    Raises:
        OSError: the address is not ours, or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Also for a peer that is there and does not read: what nobody takes is not kept for ever.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
