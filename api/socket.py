"""A WebSocket connection, written to and read from without a task.

A session's pushes go straight into the transport's buffer (`Socket.try_write`), and what a client sends is handed over
as it is read (`Socket.listen`). Neither ever waits: who is too slow is told so, not waited for.

Ten thousand of them are held at a time and thousands come at once, so none keeps more than it needs, and what one
leaves behind is freed as it goes: nothing here is part of a cycle once the connection is lost, for a storm of cycles
makes the collector stop the process for a second.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from websockets.frames import CloseCode as LibraryCode
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from api.sessions import CloseCode

FRAME_MAX_BYTES: Final = 64 * 1024  # protocol.md; the fragments of a message together
CLOSE_S: Final = 5.0  # for the last bytes and the peer's goodbye; then the connection is cut
RESTARTING: Final = 1012

_LOGGER: Final = logging.getLogger("uvicorn.error")


class _Machine(ServerProtocol):
    """The library's protocol machine after the handshake, with this protocol's close codes where it has its own."""

    def __init__(self) -> None:
        super().__init__(state=State.OPEN, max_size=FRAME_MAX_BYTES, logger=_LOGGER)

    def fail(self, code: int, reason: str = "") -> None:
        if code == LibraryCode.MESSAGE_TOO_BIG:
            code, reason = CloseCode.FRAME_TOO_LARGE, f"a message is at most {FRAME_MAX_BYTES:,} bytes"
        super().fail(code, reason)


class Socket(asyncio.Protocol):
    """One connection that has asked for a WebSocket: refused or accepted, once, by its door.

    Args:
        transport: reading is paused until somebody listens.
        connections: those that the server ends when it stops; this one is among them while it lasts.

    Attributes:
        heard_s: loop time of the last bytes that came.
    """

    __slots__ = (
        "_connections",
        "_cut",
        "_early",
        "_fragments",
        "_goodbye",
        "_held",
        "_is_text",
        "_loop",
        "_machine",
        "_on_gone",
        "_on_text",
        "_transport",
        "heard_s",
    )

    def __init__(self, transport: asyncio.Transport, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._connections = connections
        self._loop = loop
        self._machine = _Machine()
        self._on_text: Callable[[bytes], None] | None = None
        self._on_gone: Callable[[], None] | None = None
        self._early: list[bytes] = []  # at most what one read held: reading is paused meanwhile
        self._fragments: list[bytes] = []
        self._is_text = True
        self._held = True
        self._goodbye = False
        self._cut: asyncio.TimerHandle | None = None
        self.heard_s = loop.time()
        connections.add(self)
        transport.set_protocol(self)
        transport.pause_reading()

    # -- for the door ---------------------------------------------------------------------------------------

    def accept(self, response: bytes, on_gone: Callable[[], None]) -> None:
        """Answer the handshake; `on_gone` is called once, when the connection has ended or is about to."""
        if self._transport.is_closing():
            self._loop.call_soon(on_gone)
            return
        self._on_gone = on_gone
        self._transport.write(response)

    def refuse(self, response: bytes) -> None:
        """Answer the handshake with a plain HTTP response, and close."""
        self._goodbye = True
        if not self._transport.is_closing():
            self._transport.write(response)
            self._transport.close()

    # -- for the session ------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._goodbye or self._transport.is_closing()

    def listen(self, on_text: Callable[[bytes], None]) -> None:
        """Hand every text message to `on_text`, valid UTF-8, in order, those that came before first."""
        self._on_text = on_text
        self.resume()

    def hold(self) -> None:
        """Stop reading until `resume`; what was read already waits."""
        self._held = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Hand over what waits, and read on."""
        self._held = False
        while self._early and not self._held and self._on_text is not None:
            text = self._early.pop(0)
            if not self._goodbye:
                self._on_text(text)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    def try_write(self, data: bytes, limit_bytes: int) -> bool:
        """Write whole frames, unless more than `limit_bytes` would then wait for the client. Never waits."""
        transport = self._transport
        if self._goodbye or transport.is_closing():
            return True  # nobody is there to be too slow
        if transport.get_write_buffer_size() + len(data) > limit_bytes:
            return False
        transport.write(data)
        return True

    def end(self, code: int, reason: str = "") -> None:
        """Close with a code, once; cut the connection if the client does not follow within `CLOSE_S`."""
        if self.closing:
            return
        self._machine.send_close(code, reason)
        self._say_goodbye()
        self._early.clear()
        if self._held:
            self.resume()  # to read the client's goodbye

    def shutdown(self) -> None:
        """Close at once: the server stops."""
        if self._on_gone is not None:  # else there is no WebSocket yet, or no more
            self.end(RESTARTING)
        self._transport.close()

    def _say_goodbye(self) -> None:
        self._transport.write(b"".join(self._machine.data_to_send()))
        self._goodbye = True
        self._loop.call_soon(self._tell_gone)  # not within what ended it
        self._cut_later()

    def _tell_gone(self) -> None:
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def _cut_later(self) -> None:
        if self._cut is None:
            # Not `close`, which would wait for ever for a client that does not read.
            self._cut = self._loop.call_later(CLOSE_S, self._transport.abort)

    # -- the transport's side -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.heard_s = self._loop.time()
        machine = self._machine
        machine.receive_data(data)
        if machine.parser_exc is not None:
            self._on_violation()
            return
        for frame in machine.events_received():
            self._take(cast(Frame, frame))

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                self._is_text = frame.opcode is Opcode.TEXT
                if frame.fin:
                    self._hand_over(bytes(frame.data))
                else:
                    self._fragments = [bytes(frame.data)]
            case Opcode.CONT:
                self._fragments.append(bytes(frame.data))
                if frame.fin:
                    fragments, self._fragments = self._fragments, []
                    self._hand_over(b"".join(fragments))
            case Opcode.PING:
                self._transport.write(b"".join(self._machine.data_to_send()))
            case Opcode.CLOSE:
                self._on_goodbye()

    def _hand_over(self, data: bytes) -> None:
        if self._goodbye:
            return
        if not self._is_text:
            self.end(CloseCode.PROTOCOL_ERROR, "text frames only")
        elif not _is_utf8(data):
            self.end(CloseCode.PROTOCOL_ERROR, "a text frame is UTF-8")
        elif self._held or self._on_text is None:
            self._early.append(data)
            self._transport.pause_reading()
        else:
            self._on_text(data)

    def _on_goodbye(self) -> None:
        """The client closes, or follows our close."""
        if not self._goodbye:
            self._say_goodbye()
        self._transport.close()
        self._cut_later()

    def _on_violation(self) -> None:
        """The close frame goes out, and what the client still sends is read and dropped: closing at once
        would reset the connection, and the client might never see the code."""
        if self._goodbye:
            return
        self._say_goodbye()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. Lets go of everything that might hold on to this."""
        self._connections.discard(self)
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        self._machine.parser.close()  # it holds the machine, which holds it
        self._on_text = None
        self._early.clear()
        self._tell_gone()


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
