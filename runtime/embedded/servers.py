"""All embedded servers of one data directory, started, supervised and stopped as one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from runtime.embedded.child import Child, free_port
from runtime.embedded.clickhouse import ClickHouse
from runtime.embedded.errors import DataDirUnusable, ServerFailed
from runtime.embedded.lock import DataDirLock
from runtime.embedded.nats import NatsServer
from runtime.embedded.postgres import PostgresServer
from runtime.embedded.valkey import ValkeyServer

PORT_ATTEMPTS = 5  # a free port may be taken between our look and the server's start

Server = TypeVar("Server", NatsServer, PostgresServer, ValkeyServer)


class EmbeddedServers:
    """nats-server, Postgres, Valkey and chDB on one data directory.

    Ports come from the OS at `start` and stay until `stop`, also when a server crashes and is started again.
    The URLs hold the passwords of this data directory.

    Args:
        data_dir: made (mode 0700) when it does not exist.
        with_clickhouse: open chDB as well (about 400 MB), behind the start of the others.
    """

    nats_url: str
    nats_monitoring_url: str
    postgres_url: str
    valkey_url: str

    def __init__(self, data_dir: Path, *, with_clickhouse: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self.clickhouse_url = f"chdb://{self.data_dir / 'clickhouse'}"
        self.clickhouse = ClickHouse(self.clickhouse_url) if with_clickhouse else None
        self._lock = DataDirLock(self.data_dir)
        self._children: list[Child] = []
        self._postgres: PostgresServer | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The process of each server that runs now, by name."""
        return {child.name: child.pid for child in self._children if child.pid is not None}

    async def start(self) -> None:
        """Take the data directory and start everything; chDB goes on opening after this returns.

        Raises:
            DataDirInUse: another process owns the directory.
            DataDirUnusable: it cannot be read or written.
            ServerFailed: a server did not start. In each case nothing is left running.
        """
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._lock.acquire()
            (self.data_dir / "log").mkdir(mode=0o700, exist_ok=True)
            starting = [asyncio.create_task(start()) for start in (self._nats, self._pg, self._valkey)]
            try:
                await asyncio.gather(*starting)
            finally:
                for task in starting:
                    task.cancel()
                await asyncio.wait(starting)
            if self.clickhouse is not None:
                self.clickhouse.open()
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
        if self.clickhouse is not None:
            await self.clickhouse.close()
        if self._postgres is not None:
            self._postgres.close()
            self._postgres = None
        self._lock.release()

    async def _nats(self) -> None:
        server = await self._start(
            "nats-server",
            lambda directory, log_path: NatsServer(directory, log_path, free_port(), free_port(), (self._lock.fd,)),
            lambda server: server.child.start(),
        )
        self.nats_url, self.nats_monitoring_url = server.url, server.monitoring_url

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
