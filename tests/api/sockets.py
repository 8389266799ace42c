"""A gateway on a real socket over a log in memory whose signals can be lost, with real projections in Postgres."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from psycopg_pool import AsyncConnectionPool
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from api.app import create_app
from api.auth import Authenticator
from api.context import ApiContext
from api.gateway import Gateway
from api.presence import Presence
from api.server import Server, bind
from api.sessions import SessionLimits
from api.tickets import TicketStore
from api.websocket import WebSocketDoor
from commands.command import Command, Result
from commands.conversations import ChangeMembers
from commands.writer import PartitionWriter
from migrations.postgres.apply import upgrade
from projections.fanout import FanoutWorker
from projections.hot import HotStore
from projections.inbox import InboxQueries
from projections.past.past import Past
from projections.people import UserQueries
from projections.progress import Progress
from projections.push import PushQueries
from projections.queries import Queries
from projections.reading import Database
from projections.signals import ReceiptsWorker, SignalForwarder
from projections.sync import SyncQueries
from runtime.embedded.servers import EmbeddedServers
from runtime.tokens import mint
from streams import subjects
from streams.memory import MemoryBus, MemoryLog
from streams.ports import Signal
from streams.topology import Topology
from tests.commands.harness import create, post, writing
from tests.projections.conftest import TABLES
from tests.projections.workers import projections, running

WAIT_S = 15.0
SECRET = "a secret of thirty-two bytes or more"

Json = dict[str, Any]


class LossyBus(MemoryBus):
    """A bus that loses what `loses` says."""

    def __init__(self) -> None:
        super().__init__()
        self.loses: Callable[[Signal], bool] = lambda _signal: False

    def emit(self, signal: Signal, reply: str = "") -> int:
        return 0 if self.loses(signal) else super().emit(signal, reply)


class WriterDispatcher:
    """See `commands.ports.Dispatcher`."""

    def __init__(self, *writers: PartitionWriter) -> None:
        self._writers = {writer.stream: writer for writer in writers}

    def dispatch(self, command: Command) -> "asyncio.Future[Result]":
        return self._writers[subjects.stream(command.family, 0)].submit(command)


class Client:
    """A WebSocket client of the protocol, which keeps all it was sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[Json] = []
        self.own: list[Json] = []  # the user's own events, which have no version
        self.signals: list[Json] = []
        self.cursors: list[str] = []
        self.newest_is_told = False  # whether a cursor came after the newest event
        self.answers: list[Json] = []
        self.alive = 0
        self.hello: Json = {}
        self._stirred = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())
        self._last_id = 0

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self.connection:
                for line in str(frame).split("\n"):
                    message = json.loads(line)
                    if "id" in message:
                        self.answers.append(message)
                    elif "event" in message:
                        self.newest_is_told = False
                        (self.events if "version" in message["event"] else self.own).append(message["event"])
                    elif "signal" in message:
                        self.signals.append(message["signal"])
                    elif "cursor" in message:
                        self.cursors.append(message["cursor"])
                        self.newest_is_told = True
                    else:
                        self.alive += 1
                async with self._stirred:
                    self._stirred.notify_all()
        async with self._stirred:
            self._stirred.notify_all()

    async def until(self, condition: Callable[["Client"], bool]) -> None:
        """Wait for what was received to satisfy a condition."""
        async with asyncio.timeout(WAIT_S), self._stirred:
            await self._stirred.wait_for(lambda: condition(self) or self._reading.done())
        assert condition(self), (self.connection.close_code, self.connection.close_reason, self.answers, self.events)

    async def raw(self, text: str | bytes) -> None:
        await self.connection.send(text)

    async def request(self, method: str, **parameters: Any) -> Json:
        """The answer to a request, whole."""
        self._last_id += 1
        id_ = self._last_id
        await self.raw(json.dumps({"id": id_, method: parameters}))
        await self.until(lambda client: any(answer["id"] == id_ for answer in client.answers))
        return next(answer for answer in self.answers if answer["id"] == id_)

    async def send(self, conversation: int, text: str, client_msg_id: str | None = None) -> Json:
        return await self.request("send", **message(conversation, text, client_msg_id))

    async def closed(self) -> int:
        """The code with which the server closed."""
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(self._reading)
        assert self.connection.close_code is not None
        return self.connection.close_code

    def versions(self, conversation: int) -> list[int]:
        """Those of the events pushed, as they came."""
        return [event["version"] for event in self.events if event["conversation_id"] == str(conversation)]

    async def close(self) -> None:
        await self.connection.close()
        await asyncio.gather(self._reading)


def message(conversation: int, text: str, client_msg_id: str | None = None) -> Json:
    return {
        "conversation_id": str(conversation),
        "client_msg_id": client_msg_id or secrets.token_hex(8),
        "body": {"type": "text", "text": text},
    }


@dataclass
class World:
    """Everything there is, and shortcuts."""

    url: str
    bus: LossyBus
    log: MemoryLog
    writer: PartitionWriter
    queries: Queries
    push: PushQueries
    gateway: Gateway
    server: Server
    context: ApiContext
    stack: AsyncExitStack

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws") + "/v1/ws"

    def token(self, user_id: str, ttl_s: float = 3600) -> str:
        return mint(user_id, ttl_s=ttl_s, admin=False, secret=SECRET)

    async def open(self, query: str = "", **options: Any) -> Client:
        """A connection that has said nothing yet."""
        defaults: Json = {"subprotocols": [Subprotocol("riverrun.v1.json")], "compression": None, "max_size": None}
        connection = await connect(self.socket_url + query, **{**defaults, **options}, ping_interval=None, proxy=None)
        client = Client(connection)
        self.stack.push_async_callback(client.close)
        return client

    async def connect(self, user_id: str, **parameters: Any) -> Client:
        """A session."""
        client = await self.open()
        answer = await client.request("connect", **{"token": self.token(user_id), "device_id": "test", **parameters})
        client.hello = answer["ok"]
        return client

    async def create(self, *members: str, actor: str = "alice") -> int:
        return await create(self.writer, *members, actor=actor)

    async def post(self, conversation: int, count: int = 1, actor: str = "alice") -> int:
        """Post messages; the version of the last."""
        version = 0
        for _ in range(count):
            version = (await post(self.writer, conversation, secrets.token_hex(8), actor=actor)).version
        return version

    async def change(self, conversation: int, *, add: list[str] | None = None, remove: list[str] | None = None) -> None:
        await self.writer.submit(
            ChangeMembers(actor_id="alice", conversation_id=conversation, add=add or [], remove=remove or [])
        )


@asynccontextmanager
async def world(
    pool: AsyncConnectionPool,
    valkey_url: str,
    *,
    limits: SessionLimits | None = None,
    fanout: bool = True,
    fanout_limit: int = 0,
) -> AsyncIterator[World]:
    """A running gateway, its log empty. `pool`: of an empty, migrated database."""
    async with AsyncExitStack() as stack:
        bus = LossyBus()
        log = MemoryLog(bus)
        await log.ensure(Topology())
        progress = Progress()
        queries = Queries(pool, progress=progress, wait_s=0.5)
        users = UserQueries(pool, progress=progress)
        sync, push = SyncQueries(pool), PushQueries(Database(pool), partitions=1)
        await stack.enter_async_context(running(log, pool, progress, projections()))
        writer = await stack.enter_async_context(writing(log))
        users_writer = await stack.enter_async_context(writing(log, family=subjects.USER))
        valkey = redis.asyncio.Redis.from_url(valkey_url)
        stack.push_async_callback(valkey.aclose)
        gateway = Gateway(
            bus,
            log,
            queries,
            push,
            sync,
            presence=Presence(valkey, bus, users.acquainted, prefix=f"{secrets.token_hex(6)}:"),
            cursor_key=b"0123456789abcdef",
            partitions=1,
            fanout_limit=fanout_limit,
            limits=limits or SessionLimits(),
        )
        context = ApiContext(
            dispatcher=WriterDispatcher(writer, users_writer),
            queries=queries,
            users=users,
            sync=sync,
            past=Past(log, Database(pool), partitions=1, events_max=1_000),
            hot=HotStore(valkey, InboxQueries(pool)),
            authenticator=Authenticator.with_secret(SECRET.encode()),
            tickets=TicketStore(valkey),
            gateway=gateway,
            readiness={},
            versions={"riverrun": "test"},
            random_slot=lambda: 0,
        )
        server = Server(create_app(context), WebSocketDoor(context), gateway)
        listener = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        services = [asyncio.create_task(server.serve([listener])), asyncio.create_task(gateway.run())]
        if fanout:
            worker = FanoutWorker(log, bus, pool, partition=0, limit=fanout_limit)
            await worker.position()
            services.append(asyncio.create_task(worker.run()))
            services.append(asyncio.create_task(ReceiptsWorker(log, bus, partition=0).run()))
            services.append(
                asyncio.create_task(SignalForwarder(bus, {0: worker}, partitions=1, limit=fanout_limit).run())
            )
        stack.push_async_callback(_stop, services)
        clients = await stack.enter_async_context(AsyncExitStack())
        async with asyncio.timeout(WAIT_S):
            while not server.started:
                await asyncio.sleep(0.005)
        yield World(url, bus, log, writer, queries, push, gateway, server, context, clients)


async def _stop(services: "list[asyncio.Task[None]]") -> None:
    for service in services:
        service.cancel()
    await asyncio.gather(*services, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest_asyncio.fixture(name="open_world", loop_scope="session")
async def open_world_fixture(
    postgres_url: str, servers: EmbeddedServers, request: pytest.FixtureRequest
) -> AsyncIterator[OpenWorld]:
    """Opens a `world` on an empty database. Its parameter is the fan-out limit, 0 if it has none."""
    await asyncio.to_thread(upgrade, postgres_url)
    pool = AsyncConnectionPool(postgres_url, min_size=2, max_size=10, open=False, kwargs={"autocommit": True})
    await pool.open()
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}".encode())
    yield partial(world, pool, servers.valkey_url, fanout_limit=getattr(request, "param", 0))
    await pool.close()
