"""The embedded ClickHouse: chDB in a process of its own, which takes its 400 MB along and may be killed.

It speaks ClickHouse's HTTP interface, so whoever uses it does as with a server.
"""

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.embedded.child import Account, Child, ChildSpec
from runtime.secret_file import load_or_create_secret


class ClickHouseServer:
    """A ClickHouse on a directory and a port.

    Args:
        limits: of an analyst's statement, as settings of ClickHouse.

    Attributes:
        url: for Riverrun itself, which may everything.
        analyst_url: for those who ask: read only, under the limits.
    """

    def __init__(
        self, directory: Path, log_path: Path, port: int, limits: Mapping[str, int], inherit: Sequence[int] = ()
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        password = load_or_create_secret(directory / "riverrun.password")
        analysts = load_or_create_secret(directory / "analyst.password")
        self.url = f"http://riverrun:{password}@127.0.0.1:{port}/riverrun"
        self.analyst_url = f"http://analyst:{analysts}@127.0.0.1:{port}/riverrun"
        self._port = port
        self._credentials = b64encode(f"riverrun:{password}".encode()).decode()
        program = (sys.executable, "-P", "-m", "runtime.embedded.clickhouse_http")  # -P: nothing of the directory's
        self.child = Child(
            ChildSpec(
                name="clickhouse",
                command=(*program, str(port), ".", json.dumps(dict(limits))),
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
            writer.write(
                b"GET /?query=SELECT%201 HTTP/1.1\r\nHost: clickhouse\r\nConnection: close\r\n"
                b"Authorization: Basic " + self._credentials.encode() + b"\r\n\r\n"
            )
            answer = await reader.read()
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ConnectionRefusedError(f"the server answered {answer[:100]!r}")
        finally:
            writer.close()
            await writer.wait_closed()
