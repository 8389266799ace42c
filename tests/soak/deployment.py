"""The deployment under soak: servers of its own, one process that writes, projects and fans out, and gateways."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from runtime.embedded.child import Account, free_port, leashed
from runtime.embedded.servers import EmbeddedServers
from runtime.tokens import load_or_create_secret, mint

PARTITIONS = 2  # the least that makes a cursor a vector
BACKEND = "writer,projector,fanout"
START_S = 60.0
STOP_S = 15.0
TOKEN_S = 24 * 3600.0


class Role:
    """A process of `riverrun serve`, which keeps its port through every restart."""

    def __init__(self, name: str, roles: str, port: int, environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._command = ("-m", "runtime.cli", "serve", "--roles", roles, "--port", str(port))
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Of its process, once it was started."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start, and return when it says that it serves."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # On a leash, so that it does not outlive a soak that dies.
                *leashed((sys.executable, *self._command), Account.current(), signal.SIGKILL),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env=self._environment,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        if not line.startswith(b"Riverrun serves"):
            raise AssertionError(f"{self.name} did not start:\n{self._log.read_text(errors='replace')[-4000:]}")

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()

    async def stop(self) -> None:
        """SIGTERM, and by force when that takes too long."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.communicate()
        except TimeoutError:
            await self.kill()


class Deployment:
    """What runs."""

    def __init__(self, servers: EmbeddedServers, folder: Path, gateways: int) -> None:
        self.servers = servers
        self._secret = load_or_create_secret(folder / "jwt.secret")
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
        environment = {
            **outside,
            "RIVERRUN_NATS_URL": servers.nats_url,
            "RIVERRUN_NATS_MONITORING_URL": servers.nats_monitoring_url,
            "RIVERRUN_POSTGRES_URL": servers.postgres_url,
            "RIVERRUN_VALKEY_URL": servers.valkey_url,
            "RIVERRUN_JWT_SECRET_FILE": str(folder / "jwt.secret"),
            "RIVERRUN_PARTITIONS": str(PARTITIONS),
        }
        self.backend = Role("backend", BACKEND, 0, environment, folder / "backend.log")
        self.gateways = [
            Role(f"gateway-{number}", "api", free_port(), environment, folder / f"gateway-{number}.log")
            for number in range(gateways)
        ]

    def pids(self) -> dict[str, int | None]:
        """Of all processes, by name."""
        roles = {role.name: role.pid for role in (self.backend, *self.gateways)}
        return {**roles, **self.servers.pids}

    def token(self, user_id: str) -> str:
        """A user's token."""
        return mint(user_id, ttl_s=TOKEN_S, admin=False, secret=self._secret)


@asynccontextmanager
async def deployed(folder: Path, *, gateways: int = 2) -> AsyncIterator[Deployment]:
    """Start everything in a folder, and stop it afterwards.

    Raises:
        AssertionError: a role did not start; with the end of its log.
    """
    servers = EmbeddedServers(folder / "data", with_clickhouse=False)
    async with AsyncExitStack() as stack:
        await servers.start()
        stack.push_async_callback(servers.stop)
        deployment = Deployment(servers, folder, gateways)
        for role in (deployment.backend, *deployment.gateways):
            stack.push_async_callback(role.stop)
            await role.start()
        yield deployment
