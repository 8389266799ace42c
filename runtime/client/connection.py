"""One HTTP/1.1 keep-alive connection: a request out, its response in.

A general client costs about 400 µs of CPU a request, more than the server needs for posting a message; this
one does what the importer and the load generator need and no more. No redirects, no proxies, no compression.
"""

import asyncio
import contextlib
import ssl
from typing import Final
from urllib.parse import SplitResult

import httptools

from runtime.client.errors import ConnectionLost

READ_BYTES: Final = 64 * 1024
ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024  # far over the largest page; a bound against a server that never ends


class Connection:
    """Carries one request at a time. Not for several tasks at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: SplitResult) -> None:
        self._reader = reader
        self._writer = writer
        self._host = url.netloc.rpartition("@")[2]
        self.reusable = True

    @classmethod
    async def open(cls, url: SplitResult) -> "Connection":
        """Connect to the host of an `http` or `https` URL.

        Raises:
            ConnectionLost: nobody answers there.
        """
        secure = url.scheme == "https"
        try:
            reader, writer = await asyncio.open_connection(
                url.hostname, url.port or (443 if secure else 80), ssl=ssl.create_default_context() if secure else None
            )
        except OSError as error:
            raise ConnectionLost(f"cannot reach {url.scheme}://{url.netloc}: {error.strerror or error}") from error
        return cls(reader, writer, url)

    async def request(self, method: str, target: str, headers: str, body: bytes) -> tuple[int, bytes]:
        r"""Send a request and read the whole response.

        Args:
            target: path and query.
            headers: lines, each ended by `\r\n`.

        Returns:
            The status and the body.

        Raises:
            ConnectionLost: the server went away before the response was whole.
        """
        response = _Response()
        parser = response.parser
        length = f"content-length: {len(body)}\r\n" if body or method != "GET" else ""
        head = f"{method} {target} HTTP/1.1\r\nhost: {self._host}\r\n{headers}{length}\r\n"
        self.reusable = False  # until the response has been read to its end
        try:
            self._writer.write(head.encode("latin-1") + body)
            while not response.complete:
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise ConnectionLost("the server closed the connection before it answered")
                parser.feed_data(data)
                if response.size > ANSWER_MAX_BYTES:
                    raise ConnectionLost("the server's answer has no end")
        except (OSError, httptools.HttpParserError) as error:
            raise ConnectionLost(f"the connection broke: {error}") from error
        self.reusable = response.kept_alive
        return parser.get_status_code(), b"".join(response.parts)

    async def close(self) -> None:
        """Close the socket."""
        self._writer.close()
        with contextlib.suppress(OSError):  # it may be broken already, which is closed as well
            await self._writer.wait_closed()


class _Response:
    """What the parser tells; its method names are httptools'."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.kept_alive = False
        self.parts: list[bytes] = []
        self.size = 0
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.kept_alive = self.parser.should_keep_alive()  # after this callback it no longer knows
        self.complete = True
