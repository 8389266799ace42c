"""The floor of a connection's memory: uvicorn and websockets hold it, and an application that does nothing."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import uvicorn
import uvloop

from api.server import bind
from benchmarks.gateway import GatewayProcess

CONNECTED: Final = '{"id":1,"ok":{}}'


@contextmanager
def bare_sockets_server() -> Iterator[GatewayProcess]:
    """A process that answers `connect`, and then holds the connection."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=_main, args=(theirs,), daemon=True)
    server.start()
    try:
        assert server.pid is not None
        yield GatewayProcess(f"http://127.0.0.1:{ours.recv()}", server.pid)
    finally:
        server.terminate()
        server.join()


def _main(tell: Connection) -> None:
    uvloop.run(_serve(tell))


async def _serve(tell: Connection) -> None:
    config = uvicorn.Config(
        _hold,
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
        access_log=False,
        backlog=2048,
    )
    listener = bind("127.0.0.1", 0)
    tell.send(listener.getsockname()[1])
    await uvicorn.Server(config).serve(sockets=[listener])


async def _hold(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "riverrun.v1.json"})
    first = True
    while (await receive())["type"] == "websocket.receive":
        if first:
            await send({"type": "websocket.send", "text": CONNECTED})
        first = False
