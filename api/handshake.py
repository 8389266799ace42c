"""The handshake of a WebSocket: what a client asked, and the bytes that accept or refuse it.

uvicorn has read the request by then (`api.server`). Its own way on, through a second parser, an ASGI scope, a task and
Starlette's middleware, costs 0.9 ms and 19 KiB a connection; what is decided here needs none of it.
"""

import base64
import binascii
from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response
from websockets.utils import accept_key

PATH: Final = b"/v1/ws"
VERSION: Final = b"13"
_KEY_BYTES: Final = 16

Headers = list[tuple[bytes, bytes]]


class BadHandshake(ValueError):
    """Not a handshake of RFC 6455; the sentence says what is wrong with it."""


class Handshake:
    """One that is well-formed.

    Attributes:
        asked: query and headers, for who reads them as of any request.
        subprotocols: that the client offers, in its order.

    Raises (the constructor): BadHandshake.
    """

    __slots__ = ("_key", "asked", "subprotocols")

    def __init__(self, method: str, query: bytes, headers: Headers) -> None:
        if method != "GET":
            raise BadHandshake("a WebSocket begins with GET")
        if _values(headers, b"sec-websocket-version") != [VERSION]:
            raise BadHandshake("this server speaks version 13 of WebSocket")
        keys = _values(headers, b"sec-websocket-key")
        if len(keys) != 1 or not _is_key(keys[0]):
            raise BadHandshake("Sec-WebSocket-Key is 16 bytes in base64, once")
        self._key = keys[0].decode()
        self.asked = HTTPConnection({"type": "websocket", "headers": headers, "query_string": query})
        offered = b",".join(_values(headers, b"sec-websocket-protocol")).decode("latin-1")
        self.subprotocols = [name.strip() for name in offered.split(",") if name.strip()]

    def accepted(self, subprotocol: str | None) -> bytes:
        """The response that makes a WebSocket of the connection."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(self._key)}",
        ]
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        return "\r\n".join([*lines, "", ""]).encode()


def refused(response: Response) -> bytes:
    """A plain response in place of the WebSocket, with its body, after which the connection closes."""
    status = HTTPStatus(response.status_code)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [b"%b: %b" % header for header in response.raw_headers]
    return b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)])


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _is_key(text: bytes) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False
