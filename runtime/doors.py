"""The doors of a process: the `api` role's parts made and its socket opened, and both taken down the right way round;
and the monitoring listener of any role."""

import platform
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from api import monitoring
from api.analysts import Analysts
from api.app import create_app
from api.auth import Authenticator
from api.context import ApiContext
from api.gateway import Gateway
from api.presence import Presence
from api.server import Server, bind
from api.sessions import SessionLimits
from api.tickets import TicketStore
from api.websocket import WebSocketDoor
from commands.ports import Dispatcher
from domain.ids import SLOTS
from projections.past.folding import EVENTS_MAX
from projections.past.past import Past
from projections.people import UserQueries
from projections.push import PushQueries
from projections.reading import Database
from projections.sync import SyncQueries
from runtime.connections import Connections
from runtime.secret_file import load_or_create_secret
from runtime.services import Services
from runtime.settings import Settings
from streams.archived import ArchivedLog

SHOWN_VERSIONS = ("riverrun", "nats-py", "eventsourcing", "starlette", "uvicorn", "psycopg", "redis")


@asynccontextmanager
async def open_doors(
    connections: Connections,
    services: Services,
    *,
    dispatcher: Dispatcher,
    readiness: Mapping[str, Callable[[], Awaitable[None]]],
) -> AsyncIterator[str]:
    """Serve the API while the context lasts; then drain its sessions.

    Yields:
        Its URL.

    Raises:
        OSError: the address is not ours, or in use. ValueError: a key file does not hold a key.
    """
    settings, jetstream = connections.settings, connections.jetstream
    pool, valkey, queries = connections.pool, connections.valkey, connections.queries
    listener = bind(settings.host, settings.port)
    partitions = settings.partitions
    database = Database(pool)
    users = UserQueries(pool, partitions=partitions, progress=connections.progress)
    sync = SyncQueries(pool, partitions=partitions)
    gateway = Gateway(
        jetstream.bus,
        jetstream.log,
        queries,
        PushQueries(database, partitions=partitions),
        sync,
        presence=Presence(
            valkey,
            jetstream.bus,
            users.acquainted,
            gateway_id=f"{settings.node_id}.{secrets.token_urlsafe(6)}",  # a node may come back under its name
        ),
        cursor_key=_cursor_key(settings),
        partitions=partitions,
        fanout_limit=settings.fanout_limit,
        limits=SessionLimits(
            per_user=settings.max_sessions_per_user,
            in_all=settings.max_sessions,
            buffer_bytes=settings.session_buffer_bytes,
            ping_s=settings.ping_s,
        ),
    )
    analysts = None
    if settings.clickhouse_analyst_url:
        analysts = Analysts(settings.clickhouse_analyst_url, settings.analyst_limits)
    context = ApiContext(
        dispatcher=dispatcher,
        queries=queries,
        users=users,
        sync=sync,
        past=Past(
            ArchivedLog(jetstream.log, connections.archive), database, partitions=partitions, events_max=EVENTS_MAX
        ),
        hot=connections.hot,
        authenticator=_authenticator(settings),
        tickets=TicketStore(valkey),
        gateway=gateway,
        readiness=readiness,
        versions={"python": platform.python_version(), **{name: version(name) for name in SHOWN_VERSIONS}},
        random_slot=lambda: secrets.randbelow(SLOTS),
        analysts=analysts,
    )
    server = Server(create_app(context), WebSocketDoor(context), gateway)
    services.start("gateway", gateway.run())
    services.start("http", server.serve([listener]))
    try:
        yield _url(listener)
    finally:
        await server.drain(settings.drain_s / 2)
        if analysts is not None:
            await analysts.close()


def open_monitoring(settings: Settings, services: Services) -> str:
    """Serve this process's figures, where a port is set for that; the URL, or "".

    Raises:
        OSError: the address is not ours, or in use.
    """
    if not settings.monitoring_port:
        return ""
    listener = bind(settings.monitoring_host, settings.monitoring_port)
    url = _url(listener)
    services.start("monitoring", monitoring.serve(listener))
    return url


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _authenticator(settings: Settings) -> Authenticator:
    if settings.jwks_file is not None:
        return Authenticator.with_jwks(settings.jwks_file.read_text(encoding="utf-8"))
    return Authenticator.with_secret(_secret(settings.jwt_secret_file))


def _cursor_key(settings: Settings) -> bytes:
    # Any secret that all gateways of a deployment share will do; without one, cursors last as long as the process.
    path = settings.cursor_key_file or settings.jwt_secret_file
    return _secret(path) if path is not None else secrets.token_bytes(32)


def _secret(path: Path | None) -> bytes:
    if path is None:
        raise ValueError("RIVERRUN_JWT_SECRET_FILE or RIVERRUN_JWKS_FILE is needed")
    return load_or_create_secret(path).encode()
