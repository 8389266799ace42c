"""The newest events that a gateway has pushed, for sessions that come a moment late: a page of history costs more."""

from collections import OrderedDict
from typing import Final

from api.frames import EventFrame

RECENT_BYTES: Final = 16 << 20  # some ten thousand events


class RecentEvents:
    """One object a gateway, for all its conversations; bounded in bytes. Who is pushed out first was pushed first."""

    def __init__(self, *, max_bytes: int = RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[tuple[int, int], EventFrame] = OrderedDict()

    def add(self, frame: EventFrame) -> None:
        """Keep an event, as long as there is room. Idempotent: an event never changes."""
        if self._frames.setdefault((frame.conversation_id, frame.version), frame) is not frame:
            return
        self._bytes += frame.size
        while self._bytes > self._max_bytes:
            self._bytes -= self._frames.popitem(last=False)[1].size

    def get(self, conversation_id: int, version: int) -> EventFrame | None:
        """An event, if it is still here."""
        return self._frames.get((conversation_id, version))
