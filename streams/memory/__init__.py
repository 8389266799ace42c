"""The log, the bus and the node registry in memory: the contract without a server, for tests of what stands on it."""

from streams.memory.bus import MemoryBus
from streams.memory.log import MemoryLog
from streams.memory.nodes import MemoryNodes

__all__ = ["MemoryBus", "MemoryLog", "MemoryNodes"]
