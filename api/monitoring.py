"""The monitoring listener: `/healthz` and `/metrics` of a process, whatever its roles, on a port of their own.

A process without the role `api` is scraped here. No token: it is for the operator's network: nothing else is served.
"""

import asyncio
import socket
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import health, metrics
from api.server import Uvicorn

SHUTDOWN_S: Final = 1  # a scrape under way gets this long to end


async def _healthz(_request: Request) -> Response:
    return health.alive()


async def _metrics(_request: Request) -> Response:
    return metrics.exposition()


async def serve(listener: socket.socket) -> None:
    """Answer on a bound socket until cancelled; it is closed after."""
    server = Uvicorn(
        uvicorn.Config(
            Starlette(routes=[Route("/healthz", _healthz), Route("/metrics", _metrics)]),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()
