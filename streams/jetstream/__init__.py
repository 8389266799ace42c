"""The log, the bus and the node registry on NATS JetStream. Only `runtime` names this package."""

from typing import Any, Self

from streams.jetstream.bus import JetStreamBus
from streams.jetstream.connection import Connection
from streams.jetstream.log import JetStreamLog
from streams.jetstream.nodes import JetStreamNodes
from streams.jetstream.sync_check import check_sync_always

__all__ = ["JetStream", "check_sync_always"]

CONNECT_S = 5.0


class JetStream:
    """One connection, and what Riverrun needs of NATS over it.

    Attributes:
        log, bus, nodes: see `streams.ports`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.bus = JetStreamBus(connection)
        self.nodes = JetStreamNodes(connection)
        self.log = JetStreamLog(connection, self.nodes)

    @classmethod
    async def connect(cls, url: str, *, name: str, timeout_s: float = CONNECT_S, **credentials: Any) -> Self:
        """Connect once; from then on the connection comes back by itself.

        Args:
            url: `nats://[user:password@]host:port`, or several, separated by commas.
            name: what the server's monitoring shows.
            credentials: nats-py's own options (`token`, `user_credentials`, `tls`, …), where the URL has none.

        Raises:
            LogUnavailable: no server let us in within `timeout_s`.
        """
        return cls(await Connection.open(url, name=name, timeout_s=timeout_s, **credentials))

    @property
    def connected(self) -> bool:
        """Whether a server is there now, as far as is known."""
        return self._connection.connected

    async def close(self) -> None:
        """Answer what is being answered, and disconnect."""
        await self.bus.close()
        await self._connection.close()
