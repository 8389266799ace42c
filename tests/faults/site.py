"""The deployment that faults are injected into: a cluster of its own, with disks, networks and clocks that can fail.

It offers the faults; which, when and on whom is the schedule's.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import nats
import redis.asyncio

from runtime.cluster import Cluster
from runtime.secret_file import load_or_create_secret
from runtime.settings import Settings
from runtime.tokens import mint
from tests.faults.clock import Offset
from tests.faults.disks import Disk
from tests.faults.proxy import Network
from tests.faults.schedule import NATS, WRITERS, Step

TOKEN_S: Final = 24 * 3600.0
HOUR_S: Final = 3600.0
RECOVERY_S: Final = 60.0  # for what was stopped or killed to answer again
LEADER_S: Final = 15.0  # elections take up to 10
# By the data directory's folder. What is not on them (passwords, logs, the lock) is not what may be lost.
DISKS_MIB: Final = {**dict.fromkeys(NATS, 1024), "postgres": 3072}


class Site:
    """Start it, and stop it.

    Args:
        folder: for everything; its own.
        with_disks: whether the data lies on disks of its own, which needs root.

    Attributes:
        cluster: that runs now; another after a power cut.
        moved: called when the gateways have come back elsewhere.
        planted: what is wrong with the log because it was put there, as `riverrun verify` names it.
    """

    def __init__(self, folder: Path, *, with_disks: bool) -> None:
        self.moved: Callable[[Sequence[str]], None] = lambda _: None
        self.cluster: Cluster
        self.planted: list[str] = []
        self._folder = folder
        self._data_dir = folder / "data"
        self._with_disks = with_disks
        self._disks: dict[str, Disk] = {}
        self._networks: dict[str, Network] = {}
        self._clocks: dict[str, Offset] = {}

    async def start(self) -> None:
        """Make the disks and start everything.

        Raises:
            CannotMount: this machine cannot have disks of a test's own; it says what is missing.
        """
        if self._with_disks:
            for name, size_mib in DISKS_MIB.items():
                image = self._folder / f"{name}.ext4"
                self._disks[name] = Disk.make(image, self._data_dir / name, size_mib=size_mib)
        for name in WRITERS:
            self._networks[name] = await Network.start(len(NATS))
            self._clocks[name] = Offset(self._folder / f"{name}.clock")
        await self._start_cluster()

    async def stop(self) -> None:
        """Stop everything, and take the disks away."""
        if hasattr(self, "cluster"):
            await self.cluster.stop()
        for network in self._networks.values():
            await network.stop()
        for disk in self._disks.values():
            disk.remove()

    async def _start_cluster(self) -> None:
        self.cluster = Cluster(
            self._data_dir, Settings(), self._with_keys, launcher=self._launch, overrides=self._overrides
        )
        await self.cluster.start()

    def _with_keys(self, settings: Settings) -> Settings:
        load_or_create_secret(self._folder / "jwt.secret")
        return replace(settings, jwt_secret_file=self._folder / "jwt.secret")

    def _launch(self, name: str) -> Sequence[str]:
        clock = self._clocks.get(name)
        return (sys.executable, "-m", *(("tests.faults.clock", str(clock.path)) if clock else ()), "runtime.cli")

    def _overrides(self, name: str) -> Mapping[str, str]:
        network = self._networks.get(name)
        return {"RIVERRUN_NATS_URL": network.through(self.cluster.settings.nats_url)} if network else {}

    # -- what there is --------------------------------------------------------------------------------------

    @property
    def gateway_urls(self) -> list[str]:
        """Of the gateways."""
        return self.cluster.gateway_urls

    @property
    def settings(self) -> Settings:
        """As the processes have them."""
        return self.cluster.settings

    def token(self, user_id: str) -> str:
        """A user's token."""
        secret = load_or_create_secret(self._folder / "jwt.secret")
        return mint(user_id, ttl_s=TOKEN_S, admin=False, secret=secret)

    def keep_logs(self, folder: Path) -> None:
        """Copy what the processes have said so far."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._data_dir / "log").glob("*.log"):
            shutil.copy(path, folder)

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[Any]:
        """A connection of nats-py's own to the log, past the proxies."""
        client = await nats.connect(self.settings.nats_url.split(","), max_reconnect_attempts=1)
        try:
            yield client
        finally:
            await client.close()

    async def leader(self, stream: str) -> str:
        """The nats-server that leads a stream now."""
        async with asyncio.timeout(LEADER_S):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    async with self.jetstream() as client:
                        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=2)
                    about = msgspec.json.decode(answer.data)
                    if leader := about.get("cluster", {}).get("leader"):
                        return str(leader).removeprefix("riverrun-")
                await asyncio.sleep(0.1)

    # -- faults ---------------------------------------------------------------------------------------------

    async def do(self, step: Step) -> str:
        """Do what a step says, and return when it is over; who was hit."""
        whom = step.whom
        if whom.startswith("leader of "):
            whom = await self.leader(whom.removeprefix("leader of "))
        await _FAULTS[step.what](self, whom.split("+") if whom else [], step.for_s)
        return whom

    async def _kill(self, names: list[str], _for_s: float) -> None:
        before = {name: self.cluster.pids[name] for name in names}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        await self._until(lambda: all(self.cluster.pids.get(name) not in (None, pid) for name, pid in before.items()))

    async def _pause(self, names: list[str], for_s: float) -> None:
        pids = [pid for name in names for pid in _with_children(self.cluster.pids[name])]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def _stop(self, names: list[str], for_s: float) -> None:
        await asyncio.gather(*(self.cluster.child(name).stop() for name in names))
        await asyncio.sleep(for_s)
        await asyncio.gather(*(self.cluster.child(name).start() for name in names))

    async def _hold_answers(self, names: list[str], for_s: float) -> None:
        await self._hold(names, for_s, to_server=False, to_client=True)

    async def _hold_requests(self, names: list[str], for_s: float) -> None:
        await self._hold(names, for_s, to_server=True, to_client=False)

    async def _hold_both(self, names: list[str], for_s: float) -> None:
        await self._hold(names, for_s, to_server=True, to_client=True)

    async def _hold(self, names: list[str], for_s: float, *, to_server: bool, to_client: bool) -> None:
        for name in names:
            self._networks[name].hold(to_server=to_server, to_client=to_client)
        await asyncio.sleep(for_s)
        for name in names:
            self._networks[name].heal()

    async def _cut(self, names: list[str], for_s: float) -> None:
        for name in names:
            await self._networks[name].cut()
        await asyncio.sleep(for_s)
        for name in names:
            self._networks[name].heal()

    async def _flush(self, _names: list[str], _for_s: float) -> None:
        async with redis.asyncio.Redis.from_url(self.settings.valkey_url) as valkey:
            await valkey.flushall()

    async def _ahead(self, names: list[str], for_s: float) -> None:
        await self._set_clocks(names, for_s, HOUR_S)

    async def _back(self, names: list[str], for_s: float) -> None:
        await self._set_clocks(names, for_s, -HOUR_S)

    async def _set_clocks(self, names: list[str], for_s: float, offset_s: float) -> None:
        for name in names:
            self._clocks[name].set(offset_s)
        await asyncio.sleep(for_s)
        for name in names:
            self._clocks[name].set(0)

    async def _fill(self, names: list[str], for_s: float) -> None:
        for name in names:
            self._disks[name].fill()
        await asyncio.sleep(for_s)
        for name in names:
            self._disks[name].make_room()
        # nats-server stores nothing more after a failed write until it is started again (2.15.1).
        if nats_servers := [name for name in names if name in NATS and name in self.cluster.pids]:
            await self._kill(nats_servers, 0)

    async def _lose_power(self, _names: list[str], _for_s: float) -> None:
        """The whole machine: nothing runs when the disks go, so that no ack is given on what cannot be kept."""
        pids = [pid for one in self.cluster.pids.values() for pid in _with_children(one)]
        for number in (signal.SIGSTOP, None, signal.SIGKILL):
            if number is None:
                for disk in self._disks.values():
                    disk.lose_power()
                continue
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        await self.cluster.stop()
        for disk in self._disks.values():
            disk.unmount()
        for disk in self._disks.values():
            disk.mount()
        await self._start_cluster()
        self.moved(self.gateway_urls)

    async def _until(self, condition: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + RECOVERY_S
        while not condition():
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"not started again in {RECOVERY_S:.0f} s: {self.cluster.pids}")
            await asyncio.sleep(0.02)


def _with_children(pid: int) -> list[int]:
    """A process and those it has started: Postgres works in its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return [pid]
    return [pid, *map(int, children.split())]


_Fault = Callable[[Site, list[str], float], Awaitable[None]]

_FAULTS: Final[Mapping[str, _Fault]] = {
    "kill": Site._kill,
    "pause": Site._pause,
    "stop": Site._stop,
    "flush": Site._flush,
    "hold what NATS says to": Site._hold_answers,
    "hold what is said to NATS by": Site._hold_requests,
    "hold both ways of": Site._hold_both,
    "cut off": Site._cut,
    "set an hour ahead the clock of": Site._ahead,
    "set an hour back the clock of": Site._back,
    "fill the disk of": Site._fill,
    "lose power": Site._lose_power,
}
