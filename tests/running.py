"""A whole Riverrun for tests: `riverrun up` as its own process, on a port from the OS, seen only from outside."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from runtime.tokens import mint

START_S = 60.0
STOP_S = 15.0


class Running:
    """`riverrun up` on a data directory.

    Args:
        arguments: more of the command's.
        settings: `RIVERRUN_*` variables.

    Attributes:
        url: where it answers, e.g. `http://127.0.0.1:34567`; the port is another after each start.
    """

    def __init__(self, data_dir: Path, *arguments: str, **settings: str) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self.url = ""
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._log = data_dir.with_name(data_dir.name + ".log")

    async def start(self) -> None:
        """Start, and return when it says that it is ready."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime.cli", "up", "--port", "0", "--data-dir", str(self.data_dir)),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **self._settings},
            )
        try:
            async with asyncio.timeout(START_S):
                await self._until_ready()
        except BaseException:
            if self._process.returncode is None:
                await self.stop()
            raise

    async def _until_ready(self) -> None:
        assert self._process is not None
        while not await self._is_ready():
            if self._process.returncode is not None:
                raise AssertionError(f"riverrun ended with {self._process.returncode}:\n{self.output()[-4000:]}")
            await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        assert self._process is not None
        try:
            record = self.run_json()
            if record["pid"] != self._process.pid:
                return False  # the record of the run before
            self.url = record["url"]
            async with httpx.AsyncClient(timeout=2) as client:
                return (await client.get(f"{self.url}/readyz")).status_code == 200
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            return False

    def run_json(self) -> dict[str, Any]:
        """What the process says of itself."""
        record: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return record

    def output(self) -> str:
        """All it has printed, over all its starts."""
        return self._log.read_text(errors="replace")

    def token(self, user_id: str, *, ttl_s: int = 3600, admin: bool = False, analyst: bool = False) -> str:
        """A token of this deployment."""
        secret = (self.data_dir / "jwt.secret").read_text().strip()
        return mint(user_id, ttl_s=ttl_s, admin=admin, analyst=analyst, secret=secret)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """`kill -9` of the process and every server it started, at once."""
        assert self._process is not None
        for pid in [self._process.pid, *self.run_json()["pids"].values()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        await self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None
