"""Gateways' presence on a real Valkey, under keys of a test's own, with sessions that keep what they are pushed."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest_asyncio
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.presence import Presence
from api.presence_times import PresenceTimes
from api.presence_view import PresenceView
from domain.errors import Unavailable
from runtime.embedded.child import free_port
from runtime.embedded.servers import EmbeddedServers
from streams.memory import MemoryBus
from streams.ports import Bus

WAIT_S = 15.0

Json = dict[str, Any]

# Leases as long as a test can wait for, the rest as short as it can be told apart from nothing.
QUICK = PresenceTimes(
    lease_s=1.0, refresh_s=0.25, gather_s=0.005, flap_s=0.3, push_every_s=0.0, poll_s=0.05, recheck_s=30.0
)


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class FakeSession:
    """A session that keeps what it is pushed."""

    def __init__(self, user_id: str, device_kind: str = "desktop") -> None:
        self.user_id = user_id
        self.device_kind = device_kind
        self.signals: list[Json] = []

    def push_signal(self, payload: bytes) -> None:
        self.signals.append(json.loads(payload)["signal"])

    def told(self, user_id: str) -> list[str]:
        """The statuses it was pushed of a user."""
        return [signal["status"] for signal in self.signals if signal["user_id"] == user_id]


class Acquaintances:
    """Who may see whom: everybody, but for those named."""

    def __init__(self) -> None:
        self.apart: set[tuple[str, str]] = set()
        self.down = False
        self.asked = 0

    async def __call__(self, viewer_id: str, others: list[str]) -> set[str]:
        self.asked += 1
        if self.down:
            raise Unavailable("the read models do not answer")
        return {other for other in others if (viewer_id, other) not in self.apart and not other.startswith("stranger")}


@dataclass(eq=False)
class Gate:
    """A gateway, as far as presence goes."""

    presence: Presence
    valkey: redis.asyncio.Redis
    serving: "asyncio.Task[None]"
    here: list[FakeSession] = field(default_factory=list)

    def connect(self, user_id: str, device_kind: str = "desktop") -> FakeSession:
        session = FakeSession(user_id, device_kind)
        self.presence.connected(session)
        return session

    async def view(self, user_id: str, viewer_id: str = "viewer") -> PresenceView:
        (view,) = (await self.presence.of(viewer_id, [user_id])).users
        return view

    async def until(self, user_id: str, condition: Callable[[PresenceView], bool]) -> PresenceView:
        """Wait until what others see satisfies a condition."""
        async with asyncio.timeout(WAIT_S):
            while not condition(view := await self.view(user_id)):
                await asyncio.sleep(0.01)
        return view

    async def until_is(self, user_id: str, status: str) -> PresenceView:
        return await self.until(user_id, lambda view: view.status == status)

    async def watching(self, viewer_id: str, *users: str) -> FakeSession:
        """A new session of a viewer that watches users."""
        session = self.connect(viewer_id)
        await self.presence.watch(session, users)
        return session

    async def stop(self) -> None:
        """Go in good order."""
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    async def crash(self) -> None:
        """Go without a goodbye: nothing it says from now on arrives."""
        pool = self.valkey.connection_pool
        nobody = pool.connection_kwargs["port"] = free_port()
        # Those there are as well: whose connection breaks connects it again, to where it was made for. All stay in the
        # pool, which closes them at the end.
        for connection in (*pool._available_connections, *pool._in_use_connections):
            connection.port = nobody  # type: ignore[attr-defined]  # TCP, so it has one
        await pool.disconnect()
        await self.stop()


@dataclass
class Presences:
    """Gateways of one deployment."""

    valkey_url: str
    stack: AsyncExitStack
    bus: MemoryBus
    acquainted: Acquaintances
    prefix: str

    def gate(self, *, bus: Bus | None = None, valkey_url: str = "", **options: Any) -> Gate:
        """Another gateway, running. `options`: of `Presence`, and of its times."""
        valkey = redis.asyncio.Redis.from_url(valkey_url or self.valkey_url, retry=Retry(NoBackoff(), 0))
        self.stack.push_async_callback(valkey.aclose)
        of_times = {name: options.pop(name) for name in list(options) if name.endswith("_s")}
        presence = Presence(
            valkey,
            bus or self.bus,
            self.acquainted,
            prefix=self.prefix,
            times=replace(QUICK, **of_times),
            **options,
        )
        gate = Gate(presence, valkey, asyncio.create_task(presence.run()))
        self.stack.push_async_callback(gate.stop)
        return gate


@asynccontextmanager
async def presences(valkey_url: str) -> AsyncIterator[Presences]:
    """A deployment without a gateway."""
    async with AsyncExitStack() as stack:
        yield Presences(valkey_url, stack, MemoryBus(), Acquaintances(), f"test:{secrets.token_hex(6)}:")


@pytest_asyncio.fixture(name="world", loop_scope="session")
async def world_fixture(servers: EmbeddedServers) -> AsyncIterator[Presences]:
    """A deployment on the shared Valkey."""
    async with presences(servers.valkey_url) as world:
        yield world


def database(url: str, number: int) -> str:
    """The URL of another database of the same Valkey."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{number}"))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)
