"""A hot store under test: a Valkey of its own, a feeder, and a builder of what there is to feed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from psycopg_pool import AsyncConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from projections import hot_keys
from projections.hot import HotStore
from projections.hot_feed import HotFeed
from projections.inbox import InboxQueries
from projections.pages import Inbox
from runtime.embedded.child import free_port
from runtime.embedded.valkey import ValkeyServer
from streams import subjects
from tests.projections.models import Models

WAIT_S = 20.0
CONV, USER = subjects.stream(subjects.CONV, 0), subjects.stream(subjects.USER, 0)


def client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


@pytest_asyncio.fixture(name="valkey_server", scope="module", loop_scope="session")
async def valkey_server_fixture(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ValkeyServer]:
    """One of this module's own, which may be flushed and stopped."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    server = ValkeyServer(folder / "data", folder / "log", free_port())
    await server.child.start()
    yield server
    await server.child.stop()


@pytest_asyncio.fixture(name="valkey", loop_scope="session")
async def valkey_fixture(valkey_server: ValkeyServer) -> AsyncIterator[redis.asyncio.Redis]:
    valkey = client(valkey_server.url)
    await valkey.flushall()
    yield valkey
    await valkey.aclose()


@pytest_asyncio.fixture(name="models", loop_scope="session")
async def models_fixture(pool: AsyncConnectionPool) -> Models:
    return await Models(pool).open()


@pytest.fixture(name="inbox")
def inbox_fixture(pool: AsyncConnectionPool) -> InboxQueries:
    return InboxQueries(pool)


@pytest.fixture(name="hot")
def hot_fixture(valkey: redis.asyncio.Redis, inbox: InboxQueries) -> HotStore:
    return HotStore(valkey, inbox)


@pytest.fixture(name="feed")
def feed_fixture(valkey: redis.asyncio.Redis, pool: AsyncConnectionPool) -> HotFeed:
    return HotFeed(valkey, pool, [CONV, USER])


@asynccontextmanager
async def running(feed: HotFeed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.005)


async def in_force(valkey: Any, models: Models) -> None:
    """Wait until there is an epoch that has everything that was committed."""

    async def has_all() -> bool:
        at = await valkey.hgetall(await root(valkey) + "at")
        wanted = hot_keys.by_stream(models.positions)
        return {stream.decode(): int(sequence) for stream, sequence in at.items()} == wanted

    await eventually(has_all)


async def root(valkey: Any) -> str:  # a client that gives bytes, which its type does not say
    """What the keys of the epoch in force begin with; of no key when none is."""
    return hot_keys.root((await valkey.get(hot_keys.EPOCH) or b"").decode())


async def own_keys(valkey: redis.asyncio.Redis) -> set[str]:
    return {key.decode().split(":", 3)[3] async for key in valkey.scan_iter(await root(valkey) + "own:*")}


async def same(hot: HotStore, inbox: InboxQueries, user: str, **options: Any) -> Inbox:
    """The user's page, which is the same from both."""
    found = await hot.page(user, limit=50, **options)
    assert found == await inbox.page(user, limit=50, **options)
    return found
