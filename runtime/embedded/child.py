"""One supervised server process: started, watched, started again when it crashes, stopped in time."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from runtime.embedded.errors import ServerFailed

START_TIMEOUT_S = 60.0  # a server that recovers a large log after a crash takes its time
STOP_TIMEOUT_S = 3.5  # all servers stop at once, and `up` promises to be gone in good time
KILL_TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.02
BACKOFF_S = (0.1, 0.3, 1.0, 2.0, 5.0)  # between starts of a server that keeps crashing; then the last one for ever
STEADY_S = 30.0  # up for this long, a server's next crash counts as its first
LOG_KEPT_BYTES = 8 << 20  # a larger log is put aside at the next start, so a data dir holds at most two
TAIL_LINES = 3
SAID_MAX_BYTES = 16 * 1024

LEASH = Path(__file__).with_name("leash.py")

log = structlog.get_logger("riverrun.embedded")


def environment() -> dict[str, str]:
    """What a server is told of our environment: nothing that could change its ways, or hold a secret."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Account:
    """The system user a server runs as."""

    uid: int
    gid: int

    @classmethod
    def current(cls) -> "Account":
        """The user of this process."""
        return cls(os.geteuid(), os.getegid())


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run a server.

    Attributes:
        probe: returns when the server answers as ours, and raises `OSError` or `EOFError` until it does.
        environment: what it is told of ours, see `environment`.
        stop_timeout_s: what it has to end in good order.
        death_signal: sent by the kernel when this process dies.
        hard_signal: sent when `stop_signal` was not enough; SIGKILL follows.
        inherit: descriptors the server keeps.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    log_path: Path
    probe: Callable[[], Awaitable[None]]
    account: Account
    stop_signal: signal.Signals = signal.SIGTERM
    hard_signal: signal.Signals = signal.SIGKILL
    death_signal: signal.Signals = signal.SIGKILL
    inherit: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=environment, repr=False)
    stop_timeout_s: float = STOP_TIMEOUT_S


class Child:
    """A server process and its supervisor. It keeps its command line, so its port, through every restart.

    Attributes:
        on_restart: called after a crashed server answers again, with a new pid.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._log_from = 0
        self.on_restart: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """What the server is called in messages."""
        return self._spec.name

    @property
    def pid(self) -> int | None:
        """The process that runs now, `None` between a crash and the next start."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def start(self) -> None:
        """Start the server and return when it answers; from then on it is supervised.

        Raises:
            ServerFailed: it ended or did not answer in time. Nothing is left running.
        """
        try:
            await self._launch()
        except BaseException:
            await self._end()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """End supervision and the server, by force after `STOP_TIMEOUT_S`. Idempotent."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        await self._end()

    async def _launch(self) -> None:
        spec = self._spec
        with _open_log(spec.log_path) as log_file:
            self._log_from = log_file.tell()
            self._process = await asyncio.create_subprocess_exec(
                *leashed(spec.command, spec.account, spec.death_signal),
                cwd=spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env=spec.environment,
                pass_fds=tuple(spec.inherit),
                start_new_session=True,  # Ctrl-C in the terminal is for Riverrun, which then stops its servers
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._until_ready(self._process)
        except TimeoutError:
            raise ServerFailed(self.name, f"no answer in {START_TIMEOUT_S:.0f} s", self._tail()) from None

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                raise ServerFailed(self.name, describe_end(process.returncode), self._tail())
            try:
                async with asyncio.timeout(2.0):
                    await self._spec.probe()
            except (OSError, EOFError):  # TimeoutError is an OSError
                await asyncio.sleep(PROBE_EVERY_S)
            else:
                return

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            assert self._process is not None
            started_at = loop.time()
            end = describe_end(await self._process.wait())
            stopped_at = loop.time()
            if stopped_at - started_at > STEADY_S:
                failures = 0
            log.error(f"{self.name} stopped ({end})", server=self.name, said=self._tail())
            while True:
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                try:
                    await self._launch()
                    break
                except (ServerFailed, OSError) as error:
                    log.error(str(error), server=self.name)
                    await self._end()
            log.warning(
                f"{self.name} stopped ({end}), started again in {loop.time() - stopped_at:.1f} s", server=self.name
            )
            self.on_restart()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        for signal_number, patience_s in (
            (self._spec.stop_signal, self._spec.stop_timeout_s),
            (self._spec.hard_signal, KILL_TIMEOUT_S),
            (signal.SIGKILL, None),
        ):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal_number)
            try:
                async with asyncio.timeout(patience_s):
                    await process.wait()
                return
            except TimeoutError:
                log.warning(f"{self.name} did not stop by {signal_number.name} in {patience_s} s", server=self.name)

    def said(self) -> bytes:
        """What the server has written since it was started; of much, the end."""
        try:
            with self._spec.log_path.open("rb") as file:
                file.seek(max(self._log_from, file.seek(0, os.SEEK_END) - SAID_MAX_BYTES))
                return file.read()
        except OSError:
            return b""

    def _tail(self) -> str:
        """The last lines of what it said."""
        lines = self.said().decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])


def leashed(command: Sequence[str], account: Account, death_signal: signal.Signals) -> Sequence[str]:
    """The command that runs `command` as a user, and ends it by a signal when this process dies."""
    leash = (LEASH, os.getpid(), int(death_signal), account.uid, account.gid)
    return (sys.executable, "-I", "-S", *map(str, leash), *command)


def describe_end(returncode: int) -> str:
    """An exit status in words: `exit status 1`, `signal 9`."""
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def free_port() -> int:
    """A loopback port that nobody has now. Somebody may take it before the server does: then start with another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > LOG_KEPT_BYTES:
        path.rename(path.with_suffix(".log.1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file
