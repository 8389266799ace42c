"""A WebSocket session that costs next to nothing, so that a load generator may share a machine with its server.

Frames are made and taken apart by hand on an asyncio protocol: about a fifth of what a general library costs.
It trusts the server to speak the protocol (text frames, not fragmented) and says so when it does not.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from runtime.client import SUBPROTOCOL, ConnectionLost, SessionClosed

OPENING_AT_ONCE: Final = 64  # well inside a listen backlog of 100
OPEN_TIMEOUT_S: Final = 30.0
PING_S: Final = 20.0  # under the 25 s after which the server would ask
PING: Final = b'{"id":0,"ping":{}}'

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


class LightSocket(asyncio.Protocol):
    """One session. `on_text` is called with the payload of every frame: one or more JSON objects, one a line.

    Args:
        hello: the first request, a `connect`.

    Attributes:
        answer: to `hello`, as JSON; empty before it came.
        on_text: may be replaced at any time.
        closed: done when the session has ended, with its `SessionClosed` as the result.
    """

    def __init__(self, host: str, hello: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.on_text: Callable[[bytes], None] = self._take_first
        self.closed: asyncio.Future[SessionClosed] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.answer = b""
        self._host = host
        self._hello = hello
        self._early: list[bytes] = []
        self._rest = b""
        self._upgraded = False
        self._close_code = 1006
        self._close_reason = ""
        self._transport: asyncio.Transport

    def send(self, payload: bytes) -> None:
        """Write one text frame, unless the session has ended.

        The mask is zero, which leaves the payload as it is and is as legal as any.
        """
        if not self._transport.is_closing():
            self._frame(_TEXT, payload)

    def close(self) -> None:
        """Say goodbye and hang up."""
        if not self._transport.is_closing():
            self._close_code = 1000
            self._frame(_CLOSE, b"\x03\xe8")
            self._transport.close()

    def drop(self) -> None:
        """Be gone without a word, as a device is that loses its network."""
        self._transport.abort()

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((opcode, 0x80 | size, 0, 0, 0, 0))
        elif size < 65536:
            head = bytes((opcode, 0xFE, size >> 8, size & 255, 0, 0, 0, 0))
        else:
            raise ValueError("over the protocol's 64 KiB a frame")
        self._transport.write(head + payload)

    # -- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /v1/ws HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._upgraded:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self._fail(ConnectionLost("no session there: " + head.partition(b"\r\n")[0].decode("latin-1")))
                return
            self._upgraded = True
            self.send(self._hello)
        self._frames(data)

    def _frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= 2:
            opcode, size, start = data[at], data[at + 1], at + 2
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start + size:
                break
            at = start + size
            if opcode == _TEXT:
                self.on_text(data[start:at])
            elif opcode == _PING:
                self._frame(_PONG, data[start:at])
            elif opcode == _CLOSE:
                self._close_code = int.from_bytes(data[start : start + 2], "big") or 1005
                self._close_reason = data[start + 2 : at].decode(errors="replace")
                self._transport.close()
            else:
                self._fail(ConnectionLost(f"a frame of an unexpected kind: {opcode:#x}"))
                return
        if at < end:
            self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        ended = SessionClosed(self._close_code, self._close_reason or str(exc or ""))
        if not self.ready.done():
            self.ready.set_exception(ended)
        if not self.closed.done():
            self.closed.set_result(ended)

    def _take_first(self, payload: bytes) -> None:
        """The answer to `connect`, and whatever came before an owner took `on_text` over."""
        if self.ready.done():
            self._early.append(payload)
            return
        answer, _, rest = payload.partition(b"\n")
        if b'"ok"' in answer:
            self.answer = answer
            self.ready.set_result(None)
            if rest:
                self._early.append(rest)
        else:
            self._fail(ConnectionLost("not let in: " + answer.decode(errors="replace")))

    def listen(self, on_text: Callable[[bytes], None]) -> None:
        """Hand payloads to `on_text` from now on, those that came since the session was opened first."""
        self.on_text = on_text
        for payload in self._early:
            on_text(payload)
        self._early.clear()

    def _fail(self, error: ConnectionLost) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        self._transport.abort()


async def open_socket(url: str, token: str, *, hello: bytes | None = None) -> LightSocket:
    """A session of the server at `http://host:port`.

    Args:
        hello: the `connect` request to begin it with, for who has more to say than a token.

    Raises:
        ConnectionLost, SessionClosed: nobody there, or not let in.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    loop = asyncio.get_running_loop()
    first = hello or b'{"id":1,"connect":{"token":"%b","device_id":"bench"}}' % token.encode()
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            transport, socket = await loop.create_connection(
                lambda: LightSocket(parts.netloc, first),
                parts.hostname or "",
                parts.port or (443 if secure else 80),
                ssl=secure or None,
            )
            try:
                await socket.ready
            except BaseException:
                transport.abort()
                raise
    except TimeoutError as error:
        raise ConnectionLost(f"no session within {OPEN_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise ConnectionLost(f"cannot reach {url}: {error.strerror or error}") from error
    return socket


async def open_sockets(url: str, tokens: Sequence[str]) -> list[LightSocket]:
    """A session for each token, in their order, opened a bounded number at a time. All, or none and the error."""
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def gated(token: str) -> LightSocket:
        async with gate:
            return await open_socket(url, token)

    opening = [asyncio.create_task(gated(token)) for token in tokens]
    try:
        return list(await asyncio.gather(*opening))
    except BaseException:
        for task in opening:
            task.cancel()
        for opened in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(opened, LightSocket):
                opened.close()
        raise


async def keep_alive(sockets: Sequence[LightSocket]) -> None:
    """Ping, so that sessions that only listen are not taken for dead. Until cancelled."""
    while True:
        await asyncio.sleep(PING_S)
        for socket in sockets:
            socket.send(PING)


async def close_sockets(sockets: Sequence[LightSocket]) -> None:
    """Close all, and wait until they are."""
    for socket in sockets:
        socket.close()
    await asyncio.gather(*(socket.closed for socket in sockets))
