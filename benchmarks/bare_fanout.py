"""The floor of fan-out: a server that does nothing but write the same bytes to every transport it has."""

import asyncio
from multiprocessing.connection import Connection
from typing import Final, cast

import uvloop

from runtime.bench.mark import END, START

CONNECTED: Final = b'{"id":1,"ok":{}}'
UPGRADED: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
BACKLOG: Final = 1024


def serve(push: bytes, tell: Connection) -> None:
    """Serve until killed; `tell` is sent the port. `push` is a delivery; each has the mark of what was sent."""
    uvloop.run(_serve(push, tell))


async def _serve(push: bytes, tell: Connection) -> None:
    crowd = _Crowd(push)
    server = await asyncio.get_running_loop().create_server(lambda: _Socket(crowd), "127.0.0.1", 0, backlog=BACKLOG)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Crowd:
    def __init__(self, push: bytes) -> None:
        self.transports: list[asyncio.Transport] = []
        at = push.index(START)
        self._before, self._after = push[:at], push[at + END :]

    def write_to_all(self, sent: bytes) -> None:
        at = sent.index(START)
        frame = _frame(self._before + sent[at : at + END] + self._after)
        for transport in self.transports:
            transport.write(frame)


class _Socket(asyncio.Protocol):
    """Knows of WebSocket only what the load generator sends: small frames whose mask is zero."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            self._transport.write(UPGRADED)
            return
        data = self._rest + data
        while len(data) >= 8:
            size, start = data[1] & 0x7F, 6
            if size == 126:
                size, start = int.from_bytes(data[2:4], "big"), 8
            if len(data) < start + size:
                break
            payload, data = data[start : start + size], data[start + size :]
            if b'"connect":' in payload:
                self._transport.write(_frame(CONNECTED))
                self._crowd.transports.append(self._transport)
            elif b'"send":' in payload:
                self._crowd.write_to_all(payload)
                self._transport.write(_frame(b'%b,"ok":{}}' % payload[: payload.index(b",")]))
        self._rest = data

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport in self._crowd.transports:
            self._crowd.transports.remove(self._transport)


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    return (bytes((0x81, size)) if size < 126 else bytes((0x81, 126, size >> 8, size & 255))) + payload
