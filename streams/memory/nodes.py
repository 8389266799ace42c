"""The node registry within one process."""

import asyncio
from collections.abc import Callable

from streams.ports import NODE_TTL_S


class MemoryNodesWatch:
    """See `streams.ports.Subscription`."""

    def __init__(self, nodes: "MemoryNodes", callback: Callable[[dict[str, bytes]], None]) -> None:
        self.callback = callback
        self.known: dict[str, bytes] | None = None
        self._nodes = nodes

    async def close(self) -> None:
        """See `streams.ports.Subscription.close`."""
        self._nodes.forget(self)


class MemoryNodes:
    """See `streams.ports.Nodes`."""

    def __init__(self) -> None:
        self._alive: dict[str, tuple[bytes, asyncio.TimerHandle]] = {}
        self._watches: list[MemoryNodesWatch] = []

    async def announce(self, node_id: str, data: bytes) -> None:
        """See `streams.ports.Nodes.announce`."""
        self._end(node_id)
        expiry = asyncio.get_running_loop().call_later(NODE_TTL_S, self._expire, node_id)
        self._alive[node_id] = (data, expiry)
        self._tell()

    async def withdraw(self, node_id: str) -> None:
        """See `streams.ports.Nodes.withdraw`."""
        self._expire(node_id)

    async def watch(self, callback: Callable[[dict[str, bytes]], None]) -> MemoryNodesWatch:
        """See `streams.ports.Nodes.watch`."""
        watch = MemoryNodesWatch(self, callback)
        self._watches.append(watch)
        self._tell()
        return watch

    def forget(self, watch: MemoryNodesWatch) -> None:
        """End a watch; see `MemoryNodesWatch.close`."""
        if watch in self._watches:
            self._watches.remove(watch)

    def _expire(self, node_id: str) -> None:
        self._end(node_id)
        self._tell()

    def _end(self, node_id: str) -> None:
        if node_id in self._alive:
            self._alive.pop(node_id)[1].cancel()

    def _tell(self) -> None:
        nodes = {node_id: data for node_id, (data, _) in self._alive.items()}
        for watch in list(self._watches):
            if watch.known != nodes:
                watch.known = nodes
                watch.callback(dict(nodes))
