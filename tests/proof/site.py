"""Where a proof takes place: real servers on a directory, and the roles of Riverrun as processes that can be killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import httpx
from psycopg_pool import AsyncConnectionPool

from migrations.postgres.apply import upgrade
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.tiers.cold import Cold
from runtime.embedded.child import Account, leashed
from runtime.embedded.servers import EmbeddedServers
from runtime.secret_file import load_or_create_secret
from streams import subjects
from streams.archived import ArchivedLog
from streams.jetstream import JetStream
from streams.ports import ArchiveUnavailable
from streams.topology import Topology

START_S: Final = 120.0
STOP_S: Final = 30.0
POLL_S: Final = 0.2


class Site:
    """Made by `opened`.

    Attributes:
        log: JetStream's own; `whole`: with the archive behind it.
    """

    def __init__(
        self, folder: Path, servers: EmbeddedServers, partitions: int, jetstream: JetStream, pool: AsyncConnectionPool
    ) -> None:
        self.folder = folder
        self.servers = servers
        self.partitions = partitions
        self.log = jetstream.log
        self.pool = pool
        self.clickhouse = ClickHouse(servers.clickhouse_url)
        self.archive = ClickHouseArchive(self.clickhouse)
        self.cold = Cold(self.clickhouse, partitions=partitions)
        self.whole = ArchivedLog(jetstream.log, self.archive)
        self.secret = load_or_create_secret(folder / "jwt.secret")

    @property
    def streams(self) -> list[str]:
        """All that have events of conversations or users."""
        return [subjects.stream(family, number) for family in subjects.FAMILIES for number in range(self.partitions)]

    async def ends(self) -> dict[str, int]:
        """The last sequence of each."""
        return {stream: await self.log.last_sequence(stream) for stream in self.streams}

    async def answers(self) -> None:
        """Wait until ClickHouse does, which may have been killed just now."""
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await self.clickhouse.query("SELECT 1")
                    return
                except ArchiveUnavailable:
                    await asyncio.sleep(POLL_S)

    def role(self, roles: str, **settings: str) -> "Role":
        """A process of some roles, not yet started.

        Args:
            settings: more of `riverrun serve`, without `RIVERRUN_`.
        """
        servers = self.servers
        given = {
            "NATS_URL": servers.nats_url,
            "NATS_MONITORING_URL": servers.nats_monitoring_url,
            "POSTGRES_URL": servers.postgres_url,
            "VALKEY_URL": servers.valkey_url,
            "CLICKHOUSE_URL": servers.clickhouse_url,
            "JWT_SECRET_FILE": str(self.folder / "jwt.secret"),
            "PARTITIONS": str(self.partitions),
            "PORT": "0",
            "ARCHIVE_S": "1",
            "TIERS_S": "1",
            "WARM_MONTHS": "0",
            **settings,
        }
        return Role(roles, {f"RIVERRUN_{name}": value for name, value in given.items()}, self.folder / "roles.log")


@asynccontextmanager
async def opened(folder: Path, *, partitions: int) -> AsyncIterator[Site]:
    """Start servers on a folder, and connect to them."""
    servers = EmbeddedServers(folder / "data")
    await servers.start()
    try:
        jetstream = await JetStream.connect(servers.nats_url, name="proof")
        try:
            await jetstream.log.ensure(Topology(partitions))
            await asyncio.to_thread(upgrade, servers.postgres_url)
            async with AsyncConnectionPool(
                servers.postgres_url, min_size=1, max_size=8, kwargs={"autocommit": True}, open=False
            ) as pool:
                site = Site(folder, servers, partitions, jetstream, pool)
                try:
                    yield site
                finally:
                    await site.clickhouse.close()
        finally:
            await jetstream.close()
    finally:
        await servers.stop()


class Role:
    """`riverrun serve` as a process.

    Attributes:
        url: of the API, where it is among the roles, once it serves.
        environment: its settings, and what else is in this process's.
    """

    def __init__(self, roles: str, environment: dict[str, str], log: Path) -> None:
        self.url = ""
        self._roles = roles
        self.environment = {**os.environ, **environment}
        self._log = log
        self._process: Process | None = None

    async def spawn(self) -> None:
        """Start it. It dies with this process."""
        command = (sys.executable, "-m", "runtime.cli", "serve", "--roles", self._roles)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *leashed(command, Account.current(), signal.SIGKILL),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env=self.environment,
            )

    async def serving(self) -> None:
        """Wait until it serves."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await self._process.stdout.readline()).decode()
        if not line.startswith("Riverrun serves"):
            raise RuntimeError(f"{self._roles} did not start: see {self._log}")
        self.url = line.partition(" at ")[2].strip()
        if self.url:
            await self._ready()

    async def _ready(self) -> None:
        async with asyncio.timeout(START_S), httpx.AsyncClient(base_url=self.url, timeout=START_S) as client:
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # it listens in a moment
                self.check()
                await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """That it still runs.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if self._process is not None and self._process.returncode is not None:
            raise RuntimeError(f"{self._roles} ended with {self._process.returncode}: see {self._log}")

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """In good order. Idempotent."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
        self._process = None

    async def __aenter__(self) -> Self:
        await self.spawn()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
