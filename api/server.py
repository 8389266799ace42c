"""The server under the doors: uvicorn for HTTP, and what asks for a WebSocket handed over to its own door."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import problem
from api.handshake import PATH, BadHandshake, Handshake, refused
from api.socket import Socket
from domain.errors import Invalid

SHUTDOWN_S: Final = 5  # HTTP requests under way get this long to end
KEEP_ALIVE_S: Final = 75  # longer than the pauses of a client that pages through history
BACKLOG: Final = 2048
# Connections in one turn of the loop. libuv takes one for each handle that listens: with a single one, a gateway whose
# turns take 20 ms for pushes lets in 50 sessions a second, and 2,000 wait for 40 s. More would hold up the pushes.
ACCEPTED_MAX: Final = 16
UNREAD_MS: Final = 60_000  # after which the system cuts a connection whose peer takes nothing


class Door(Protocol):
    """What lets WebSockets in."""

    def open(self, handshake: Handshake, socket: Socket) -> None:
        """Somebody asks: accept or refuse the socket, now or soon. Does not wait."""
        ...


class _Http(HttpToolsProtocol):
    """HTTP as uvicorn speaks it; what asks for the WebSocket at `PATH` leaves it for the door."""

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door = door

    def handle_websocket_upgrade(self) -> None:
        path, _, query = self.url.partition(b"?")
        if path != PATH:
            super().handle_websocket_upgrade()  # to Starlette, which knows of no such path
        else:
            self._upgrade(query)
        self.parser = None  # type: ignore[assignment]  # it holds this, which holds it

    def _upgrade(self, query: bytes) -> None:
        try:
            handshake = Handshake(self.scope["method"], query, self.headers)
        except BadHandshake as error:
            refusal = problem(Invalid(str(error)), status=400)
            refusal.status_code = 400
            self.transport.write(refused(refusal))
            self.transport.close()
            return
        self.connections.discard(self)
        self._door.open(handshake, Socket(self.transport, self.connections, self.loop))


class Drainable(Protocol):
    """What a server empties before it stops: the gateway."""

    async def drain(self, over_s: float) -> None:
        """Close all sessions, spread over a time in seconds, and let none in any more."""
        ...


class Uvicorn(uvicorn.Server):
    """uvicorn that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's, not this server's."""
        yield


class Server:
    """Serves an ASGI application: `serve` until cancelled, `drain` before that.

    Args:
        door: for WebSockets.
        gateway: emptied first, so that clients hear 3001 at different times and not 1012 at once.
    """

    def __init__(self, app: ASGIApp, door: Door, gateway: Drainable) -> None:
        self._gateway = gateway
        self._uvicorn = Uvicorn(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=partial(_Http, door=door),  # type: ignore[arg-type]  # called as the class would be
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
        listeners = [*sockets, *(bound.dup() for bound in sockets for _ in range(ACCEPTED_MAX - 1))]
        serving = asyncio.create_task(self._uvicorn.serve(sockets=listeners))
        try:
            await asyncio.shield(serving)
        finally:
            self._uvicorn.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            for listener in listeners:
                listener.close()

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
