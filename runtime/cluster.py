"""A deployment of many processes on one machine: what `riverrun up --cluster` runs, and what the faults are tried on.

Three nats-servers that hold each stream three times, Postgres, Valkey, ClickHouse where an archive is wanted; two
processes of each role, which share out the partitions and replace each other; one door in front of the gateways where
haproxy is installed. Everything is a child of this process, started again when it ends, and on loopback.
"""

import asyncio
import itertools
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runtime.embedded.child import Account, Child, ChildSpec, free_port
from runtime.embedded.errors import ServerFailed
from runtime.embedded.servers import EmbeddedServers
from runtime.settings import Settings, environment_for

NATS_SERVERS = 3
PARTITIONS_MIN = 4  # so that two processes of a role both have some, of either family
ROLES = {"writer": "writer", "projector": "projector", "fanout": "fanout", "gateway": "api"}  # started in this order
ARCHIVE_ROLES = {"archiver": "archiver"}
OF_EACH = 2
STOP_TIMEOUT_S = 8.0
PORT_ATTEMPTS = 5
SERVES = b"Riverrun serves "

FRONT = """\
defaults
  mode http
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  # A gateway that dies is passed over at once, and asked again every half second.
  option redispatch
  retries 2
frontend riverrun
  bind {host}:{port}
  default_backend gateways
backend gateways
  balance leastconn
  # Whether it lives: what a gateway needs, both need, and with that gone they answer so in the protocol's own words.
  option httpchk GET /healthz
{servers}
"""

Launcher = Callable[[str], Sequence[str]]  # of a node's name: what stands before `serve …`
Overrides = Callable[[str], Mapping[str, str]]  # of a node's name: what is different in its environment


def _launch(_node: str) -> Sequence[str]:
    return (sys.executable, "-m", "runtime.cli")


def _nothing(_node: str) -> Mapping[str, str]:
    return {}


class Cluster:
    """Everything, on one data directory.

    Args:
        settings: what they all have in common; the URLs and the number of partitions are the cluster's own.
        host, port: of the front door.
        prepare: given the settings with the servers' URLs, those that the processes are to have: with keys.
        with_archive: run ClickHouse as well, and archivers.
        launcher, overrides: for tests: other ways to start a node, and what is different in its environment.

    Attributes:
        servers: NATS, Postgres, Valkey, ClickHouse.
        settings: as the processes have them, once started.
        node_urls: by name, where each node shows its figures, which for a gateway is its API; they keep their ports.
        url: the front door, or the first gateway's without haproxy.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        prepare: Callable[[Settings], Settings],
        *,
        with_archive: bool = False,
        launcher: Launcher = _launch,
        overrides: Overrides = _nothing,
    ) -> None:
        self.servers = EmbeddedServers(
            data_dir,
            with_clickhouse=with_archive,
            analyst_limits=settings.analyst_limits,
            nats_servers=NATS_SERVERS,
        )
        self._roles = {**ROLES, **(ARCHIVE_ROLES if with_archive else {})}
        self.settings = settings
        self.node_urls: dict[str, str] = {}
        self.url = ""
        self._prepare = prepare
        self._launcher = launcher
        self._overrides = overrides
        self._nodes: list[Child] = []
        self._front: Child | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by name: `nats-0`, `postgres`, `writer-1`, `gateway-0`, `front`, …"""
        nodes = [*self._nodes, self._front] if self._front else self._nodes
        return {**self.servers.pids, **{node.name: node.pid for node in nodes if node.pid is not None}}

    @property
    def gateway_urls(self) -> list[str]:
        """Of the gateways, in their order."""
        return [url for name, url in sorted(self.node_urls.items()) if name.startswith("gateway")]

    def child(self, name: str) -> Child:
        """A server or a node by its name, as in `pids`.

        Raises:
            KeyError: there is none.
        """
        for node in self._nodes:
            if node.name == name:
                return node
        return self.servers.child(name)

    def on_restart(self, callback: Callable[[], None]) -> None:
        """Be told when a process was started again: `pids` has changed."""
        self.servers.on_restart(callback)
        for node in self._nodes:
            node.on_restart = callback

    async def start(self) -> None:
        """Start everything, and return when it serves.

        Raises:
            DataDirInUse, DataDirUnusable, ServerFailed: in each case nothing is left running.
        """
        try:
            await self.servers.start()
            self.settings = self._prepare(
                replace(
                    self.settings,
                    nats_url=self.servers.nats_url,
                    nats_monitoring_url=self.servers.nats_monitoring_url,
                    postgres_url=self.servers.postgres_url,
                    valkey_url=self.servers.valkey_url,
                    clickhouse_url=self.servers.clickhouse_url or self.settings.clickhouse_url,
                    clickhouse_analyst_url=self.servers.clickhouse_analyst_url,
                    partitions=max(PARTITIONS_MIN, self.settings.partitions),
                    replicas=NATS_SERVERS,
                )
            )
            # One alone makes the streams and tables; the others find them.
            names = [f"{name}-{number}" for name, number in itertools.product(self._roles, range(OF_EACH))]
            await self._start_node(names[0])
            await asyncio.gather(*map(self._start_node, names[1:]))
            self._nodes.sort(key=lambda node: names.index(node.name))
            await self._start_front()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drain and stop: first the door, then the gateways, then what they need, then the servers. Idempotent."""
        if self._front is not None:
            await self._front.stop()
        gateways = [node for node in self._nodes if node.name.startswith("gateway")]
        await asyncio.gather(*(node.stop() for node in gateways))
        await asyncio.gather(*(node.stop() for node in self._nodes))
        self._nodes.clear()
        self._front = None
        await self.servers.stop()

    async def _start_node(self, name: str) -> None:
        attempt = 0
        while True:
            attempt += 1
            node, url = self._node(name)
            try:
                await node.start()
            except ServerFailed as error:
                if attempt == PORT_ATTEMPTS or "cannot listen on" not in error.output:
                    raise
            else:
                break
        self._nodes.append(node)
        self.node_urls[name] = url

    def _node(self, name: str) -> tuple[Child, str]:
        """A node that is not started yet, and the URL it will have."""
        role = self._roles[name.partition("-")[0]]
        is_api = role == "api"  # which shows its figures at its own port
        port = free_port()
        settings = replace(
            self.settings,
            node_id=name,
            host="127.0.0.1",
            port=port if is_api else 0,
            monitoring_host="127.0.0.1",
            monitoring_port=0 if is_api else port,
        )
        log_path = self.servers.data_dir / "log" / f"{name}.log"
        spec = ChildSpec(
            name=name,
            command=(*self._launcher(name), "serve", "--roles", role),
            cwd=Path.cwd(),
            log_path=log_path,
            probe=lambda: _serves(child),
            account=Account.current(),
            environment={**environment_for(settings), **self._overrides(name)},
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        child = Child(spec)
        return child, f"http://127.0.0.1:{port}"

    async def _start_front(self) -> None:
        """haproxy, where it is installed; without it clients choose a gateway themselves."""
        haproxy = shutil.which("haproxy")
        if haproxy is None:
            self.url = self.gateway_urls[0]
            return
        host, port = self.settings.host, self.settings.port or free_port()
        folder = self.servers.data_dir / "front"
        folder.mkdir(mode=0o700, exist_ok=True)
        servers = "".join(
            f"  server gateway-{number} {url.removeprefix('http://')} check inter 500ms fall 1 rise 1\n"
            for number, url in enumerate(self.gateway_urls)
        )
        (folder / "haproxy.cfg").write_text(FRONT.format(host=host, port=port, servers=servers), encoding="utf-8")

        async def answers() -> None:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()

        self._front = Child(
            ChildSpec(
                name="front",
                command=(haproxy, "-db", "-f", "haproxy.cfg"),
                cwd=folder,
                log_path=self.servers.data_dir / "log" / "front.log",
                probe=answers,
                account=Account.current(),
            )
        )
        await self._front.start()
        self.url = f"http://{host}:{port}"


async def _serves(node: Child) -> None:
    """Return when a node has said that it serves."""
    if SERVES not in node.said():
        raise ConnectionRefusedError(f"{node.name} does not serve yet")
