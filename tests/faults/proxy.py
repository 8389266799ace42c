"""A TCP proxy that stands for the network between a process and a server, and can be partitioned.

What is held back in a partition is neither lost nor answered, as by a network that drops packets which TCP sends again
when it heals: a request that was under way arrives late, perhaps when another has taken over. Connections made during
it are held back as well. Cutting is the other kind: connections are reset, and new ones refused.
"""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES: Final = 64 * 1024
# NATS tells its clients where else they might go, in the first line it says and whenever that changes: past the proxy.
# Lines of its protocol are told from payloads by where they begin a chunk, which is where the server writes them.
ELSEWHERE: Final = re.compile(rb'^(INFO \{.*?)"connect_urls":\[[^\]]*\],?', re.DOTALL)


class Proxy:
    """One port in front of one server. Start it, and stop it.

    Attributes:
        port: where it listens, from `start` on.
        target: host and port of the server; connections made from now on go there.
    """

    def __init__(self, host: str = "", port: int = 0) -> None:
        self.port = 0
        self.target = (host, port)
        self._server: asyncio.Server | None = None
        self._to_server = asyncio.Event()
        self._to_client = asyncio.Event()
        self._refusing = False
        self._links: set[asyncio.Task[None]] = set()
        self.heal()

    async def start(self) -> Self:
        """Listen on a port the OS gives."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """End it and all connections through it."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    def hold(self, *, to_server: bool, to_client: bool) -> None:
        """Partition: let nothing through one way, or both."""
        for way, held in ((self._to_server, to_server), (self._to_client, to_client)):
            (way.clear if held else way.set)()

    async def cut(self) -> None:
        """Reset every connection, and refuse others."""
        self._refusing = True
        await self._reset()

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        self._refusing = False
        self.hold(to_server=False, to_client=False)

    async def _reset(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._refusing:
                await self._join(reader, writer)
        except OSError:
            pass  # the server is away, which closes the client's connection: as without a proxy
        finally:
            self._end(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._to_server.wait()
        server_reader, server_writer = await asyncio.open_connection(*self.target)
        ways = [
            asyncio.create_task(_pump(reader, server_writer, self._to_server)),
            asyncio.create_task(_pump(server_reader, writer, self._to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end(server_writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        """End one side as the other ended: what was written before comes through, unless this is a cut."""
        if self._refusing:
            writer.transport.abort()
        else:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_pass: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            await may_pass.wait()
            writer.write(ELSEWHERE.sub(rb"\1", data))
            await writer.drain()


class Network:
    """Proxies in front of several servers, which are partitioned together: the network of one process."""

    def __init__(self, proxies: Sequence[Proxy]) -> None:
        self._proxies = proxies

    @classmethod
    async def start(cls, servers: int) -> "Network":
        """A network to so many servers, which need not be there yet."""
        return cls([await Proxy().start() for _ in range(servers)])

    def through(self, urls: str) -> str:
        """The same URLs (one, or several with commas between), but through the proxies, from now on theirs."""
        through = []
        for url, proxy in zip(urls.split(","), self._proxies, strict=True):
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            proxy.target = (parts.hostname, parts.port)
            user, at, _ = parts.netloc.rpartition("@")
            through.append(urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}")))
        return ",".join(through)

    def hold(self, *, to_server: bool, to_client: bool) -> None:
        """See `Proxy.hold`."""
        for proxy in self._proxies:
            proxy.hold(to_server=to_server, to_client=to_client)

    async def cut(self) -> None:
        """See `Proxy.cut`."""
        await asyncio.gather(*(proxy.cut() for proxy in self._proxies))

    def heal(self) -> None:
        """See `Proxy.heal`."""
        for proxy in self._proxies:
            proxy.heal()

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(proxy.stop() for proxy in self._proxies))
