"""How far a reader is behind the end of its stream, looked at once a second and shown to Prometheus."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from projections import metrics
from streams.ports import Log, LogError

EVERY_S: Final = 1.0
LOOKS_MAX: Final = 3600  # kept of the past; of an hour and more the oldest is still known


class Lag:
    """Of one reader of one stream.

    The age of what waits is told by when this process first saw that the stream goes so far, so neither a clock of
    another machine nor a pause of the senders counts. What waited before this began counts from then on.

    Args:
        clock: seconds that only rise.

    Attributes:
        position: the sequence up to which everything is handled; `None` before that is known.
    """

    def __init__(self, log: Log, reader: str, stream: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.position: int | None = None
        self._log = log
        self._stream = stream
        self._labels = (reader, stream)
        self._clock = clock
        self._ends: deque[tuple[float, int]] = deque()  # where the stream ended, and when that was first seen

    async def run(self) -> None:
        """Look until cancelled; then it is another's to show."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(EVERY_S)
        finally:
            metrics.LAG_EVENTS.remove(*self._labels)
            metrics.LAG_SECONDS.remove(*self._labels)

    async def look(self) -> None:
        """Look once. While the log does not answer, its end is where it was last seen."""
        if self.position is None:
            return
        try:
            end = await self._log.last_sequence(self._stream)
        except LogError:
            end = self._ends[-1][1] if self._ends else self.position
        now_s = self._clock()
        if not self._ends or end != self._ends[-1][1]:
            if len(self._ends) == LOOKS_MAX:
                self._ends.pop()
            self._ends.append((now_s, end))
        while len(self._ends) > 1 and self._ends[0][1] <= self.position:
            self._ends.popleft()
        since_s, oldest = self._ends[0]
        metrics.LAG_EVENTS.labels(*self._labels).set(max(0, end - self.position))
        metrics.LAG_SECONDS.labels(*self._labels).set(now_s - since_s if oldest > self.position else 0.0)
