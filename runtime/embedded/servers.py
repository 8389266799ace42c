"""All embedded servers of one data directory, started, supervised and stopped as one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from runtime.embedded.child import Child, free_port
from runtime.embedded.clickhouse import ClickHouseServer
from runtime.embedded.errors import DataDirUnusable, ServerFailed
from runtime.embedded.lock import DataDirLock
from runtime.embedded.nats import NatsServer, Routes
from runtime.embedded.postgres import PostgresServer
from runtime.embedded.valkey import ValkeyServer
from runtime.secret_file import load_or_create_secret

AGREE_S = 60.0  # an election takes up to 10
AGREE_EVERY_S = 0.1
NO_LIMITS: Mapping[str, int] = MappingProxyType({})
PORT_ATTEMPTS = 5  # a free port may be taken between our look and the server's start

Server = TypeVar("Server", NatsServer, PostgresServer, ValkeyServer, ClickHouseServer)


class EmbeddedServers:
    """nats-server, Postgres, Valkey and ClickHouse on one data directory.

    Ports come from the OS at `start` and stay until `stop`, also when a server crashes and is started again.
    The URLs hold the passwords of this data directory.

    Args:
        data_dir: made (mode 0700) when it does not exist.
        with_clickhouse: run ClickHouse as well (about 400 MB).
        analyst_limits: of an analyst's statement, as settings of ClickHouse.
        nats_servers: 1, or as many as a cluster is to have. A directory stays with what it was begun with.

    Attributes:
        nats_url, nats_monitoring_url: of a cluster all of its servers', separated by commas.
        clickhouse_url, clickhouse_analyst_url: "" without ClickHouse.
    """

    nats_url: str
    nats_monitoring_url: str
    postgres_url: str
    valkey_url: str

    def __init__(
        self,
        data_dir: Path,
        *,
        with_clickhouse: bool = True,
        analyst_limits: Mapping[str, int] = NO_LIMITS,
        nats_servers: int = 1,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.clickhouse_url = ""
        self.clickhouse_analyst_url = ""
        self._with_clickhouse = with_clickhouse
        self._analyst_limits = analyst_limits
        self._lock = DataDirLock(self.data_dir)
        self._children: list[Child] = []
        self._postgres: PostgresServer | None = None
        self._nats_servers = nats_servers

    @property
    def pids(self) -> dict[str, int]:
        """The process of each server that runs now, by name."""
        return {child.name: child.pid for child in self._children if child.pid is not None}

    async def start(self) -> None:
        """Take the data directory and start everything.

        Raises:
            DataDirInUse: another process owns the directory.
            DataDirUnusable: it cannot be read or written.
            ServerFailed: a server did not start. In each case nothing is left running.
        """
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._lock.acquire()
            (self.data_dir / "log").mkdir(mode=0o700, exist_ok=True)
            self._check_begun_alike()
            nats = self._nats if self._nats_servers == 1 else self._nats_cluster
            starts = [nats, self._pg, self._valkey, *([self._clickhouse] if self._with_clickhouse else [])]
            starting = [asyncio.create_task(start()) for start in starts]
            try:
                await asyncio.gather(*starting)
            finally:
                for task in starting:
                    task.cancel()
                await asyncio.wait(starting)
        except OSError as error:
            await self.stop()
            raise DataDirUnusable(self.data_dir, error.strerror or str(error)) from error
        except BaseException:
            await self.stop()
            raise

    def on_restart(self, callback: Callable[[], None]) -> None:
        """Be told when a crashed server was started again: `pids` has changed. The URLs have not."""
        for child in self._children:
            child.on_restart = callback

    async def stop(self) -> None:
        """Stop everything, by force where it takes longer than 5 s, and give the directory back. Idempotent."""
        await asyncio.gather(*(child.stop() for child in self._children))
        self._children.clear()
        if self._postgres is not None:
            self._postgres.close()
            self._postgres = None
        self._lock.release()

    def child(self, name: str) -> Child:
        """A server by its name, as in `pids`.

        Raises:
            KeyError: there is none.
        """
        return {child.name: child for child in self._children}[name]

    def _check_begun_alike(self) -> None:
        begun_as = "one nats-server" if (self.data_dir / "nats").exists() else "a cluster"
        wanted = "one nats-server" if self._nats_servers == 1 else "a cluster"
        is_begun = (self.data_dir / "nats").exists() or (self.data_dir / "nats-0").exists()
        if is_begun and begun_as != wanted:
            raise DataDirUnusable(self.data_dir, f"it was begun with {begun_as}, and its log stays where it is")

    async def _nats(self) -> None:
        server = await self._start(
            "nats-server",
            lambda directory, log_path: NatsServer(directory, log_path, free_port(), free_port(), (self._lock.fd,)),
            lambda server: server.child.start(),
        )
        self.nats_url, self.nats_monitoring_url = server.url, server.monitoring_url

    async def _nats_cluster(self) -> None:
        """All servers of a cluster at once; ready when they agree on their leaders."""
        names = [f"nats-{number}" for number in range(self._nats_servers)]
        password = load_or_create_secret(self.data_dir / "nats.password")
        attempt = 0
        while True:
            attempt += 1
            routes = Routes([free_port() for _ in names], password)
            servers = [
                NatsServer(
                    self.data_dir / name,
                    self.data_dir / "log" / f"{name}.log",
                    free_port(),
                    free_port(),
                    (self._lock.fd,),
                    name=name,
                    routes=routes,
                    route_port=port,
                )
                for name, port in zip(names, routes.ports, strict=True)
            ]
            try:
                await asyncio.gather(*(server.child.start() for server in servers))
                await _agreed(servers)
            except ServerFailed as error:
                await asyncio.gather(*(server.child.stop() for server in servers))
                if attempt == PORT_ATTEMPTS or "address already in use" not in error.output.lower():
                    raise
            except BaseException:
                await asyncio.gather(*(server.child.stop() for server in servers))
                raise
            else:
                break
        self._children += [server.child for server in servers]
        self.nats_url = ",".join(server.url for server in servers)
        self.nats_monitoring_url = ",".join(server.monitoring_url for server in servers)

    async def _pg(self) -> None:
        async def start(server: PostgresServer) -> None:
            if self._postgres is not None:
                self._postgres.close()
            self._postgres = server
            await server.prepare()
            await server.child.start()

        server = await self._start(
            "postgres",
            lambda directory, log_path: PostgresServer(directory, log_path, free_port(), (self._lock.fd,)),
            start,
        )
        await server.create_database()
        self.postgres_url = server.url

    async def _valkey(self) -> None:
        server = await self._start(
            "valkey",
            lambda directory, log_path: ValkeyServer(directory, log_path, free_port(), (self._lock.fd,)),
            lambda server: server.child.start(),
        )
        self.valkey_url = server.url

    async def _clickhouse(self) -> None:
        def make(directory: Path, log_path: Path) -> ClickHouseServer:
            return ClickHouseServer(directory, log_path, free_port(), self._analyst_limits, (self._lock.fd,))

        server = await self._start("clickhouse", make, lambda server: server.child.start())
        self.clickhouse_url, self.clickhouse_analyst_url = server.url, server.analyst_url

    async def _start(
        self, name: str, make: Callable[[Path, Path], Server], start: Callable[[Server], Awaitable[None]]
    ) -> Server:
        attempt = 0
        while True:
            attempt += 1
            server = make(self.data_dir / name.removesuffix("-server"), self.data_dir / "log" / f"{name}.log")
            try:
                await start(server)
            except ServerFailed as error:
                if attempt == PORT_ATTEMPTS or "address already in use" not in error.output.lower():
                    raise
            else:
                self._children.append(server.child)
                return server


async def _agreed(servers: Sequence[NatsServer]) -> None:
    """Wait until all servers of a cluster have found each other.

    Raises:
        ServerFailed: they have not, in a minute.
    """
    try:
        async with asyncio.timeout(AGREE_S):
            while True:
                if all(await asyncio.gather(*(server.healthy() for server in servers))):
                    return
                await asyncio.sleep(AGREE_EVERY_S)
    except TimeoutError:
        raise ServerFailed("nats", f"the servers of the cluster did not agree in {AGREE_S:.0f} s") from None
