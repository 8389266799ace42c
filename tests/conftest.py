"""Real servers for every test, started here: one nats-server, Postgres and Valkey a session, on ports the OS gives.

chDB (400 MB, a second to open) is opened where a test asks for `clickhouse`: an empty database of the test's own, all
of them in one chDB of this process.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import clickhouse_connect
import psycopg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from projections.archive.clickhouse import ClickHouse
from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer
from runtime.embedded.servers import EmbeddedServers
from tests.running import Running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-corpus", action="store_true", help="import all of the shared IRC logs, not two files")


# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("riverrun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("riverrun")

# They load the machine for a minute, or wait for timers of seconds. Begun first, so beside each other, they leave the
# others in peace, and neither worker waits for the other's last file.
LONG_FILES = (
    "tests/runtime/test_cluster.py",
    "tests/test_faults.py",
    "tests/test_soak.py",
    "tests/proof/test_proof.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # of several processes; one alone fails sooner on what is quick
        order = {name: place for place, name in enumerate(LONG_FILES)}
        items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


@pytest.fixture
def whole_corpus(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of the import is asked for (minutes)."""
    return bool(request.config.getoption("--whole-corpus"))


NatsServerFactory = Callable[[], Awaitable[NatsServer]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers() -> AsyncIterator[EmbeddedServers]:
    """Started servers that all tests share: use names of your own in them."""
    with tempfile.TemporaryDirectory(prefix="riverrun-tests-") as folder:
        embedded = EmbeddedServers(Path(folder) / "data", with_clickhouse=False)
        await embedded.start()
        try:
            yield embedded
        finally:
            await embedded.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[Running]:
    """A whole Riverrun, started once, seen from outside; users and conversations of a test are its own."""
    with tempfile.TemporaryDirectory(prefix="riverrun-tests-") as folder:
        riverrun = Running(Path(folder) / "data")
        await riverrun.start()
        try:
            yield riverrun
        finally:
            assert await riverrun.stop() == 0


@asynccontextmanager
async def fresh_database(servers: EmbeddedServers) -> AsyncIterator[str]:
    """An empty database, by its URL."""
    name = f"test_{token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(servers.postgres_url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(servers.postgres_url)._replace(path=f"/{name}"))
    async with await psycopg.AsyncConnection.connect(servers.postgres_url, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postgres_url(servers: EmbeddedServers) -> AsyncIterator[str]:
    """An empty database, one a test module."""
    async with fresh_database(servers) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServerFactory]:
    """Makes nats-servers of a test's own, each on an empty store: to be stopped, killed or left to the fixture."""
    async with AsyncExitStack() as stack:
        count = 0

        async def start() -> NatsServer:
            nonlocal count
            count += 1
            server = NatsServer(tmp_path / f"nats-{count}", tmp_path / f"nats-{count}.log", free_port(), free_port())
            await server.child.start()
            stack.push_async_callback(server.child.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def chdb() -> Iterator[str]:
    """A directory that belongs to this process."""
    with tempfile.TemporaryDirectory(prefix="riverrun-tests-") as folder:
        yield f"chdb://{folder}/clickhouse"


@pytest.fixture
def clickhouse_url(chdb: str) -> Iterator[str]:
    name = f"test_{token_hex(6)}"
    client = clickhouse_connect.get_client(dsn=chdb)
    client.command(f"CREATE DATABASE {name}")
    yield f"{chdb}?database={name}"
    client.command(f"DROP DATABASE {name}")
    client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def clickhouse(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    clickhouse = ClickHouse(clickhouse_url)
    yield clickhouse
    await clickhouse.close()
