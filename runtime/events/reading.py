"""Reading events out of all partitions as one sequence: those wanted, from the oldest on; the newest few; and new ones.

Within a partition events come in its order, among partitions by when they were stored: the servers' clocks say which
of two was first.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final

from runtime.events.entry import Entry
from runtime.events.selection import Selection, Source
from streams.moments import first_since
from streams.ports import Log

WINDOW: Final = 1_024  # positions looked at first from a stream's end; four times as many each time that was too few
WINDOW_MAX: Final = 1 << 20
FOLLOW_S: Final = 0.25  # between two looks for new events
ROUND_MAX: Final = 10_000  # positions of a stream at one look; the others are for the next

Scanned = Callable[[str, int], None]  # told of each event that is looked at: stream, sequence


class Reading:
    """Reads what is selected.

    Args:
        log: with the archive it continues in.
        scanned: for whoever shows progress.

    All methods raise `LogUnavailable`.
    """

    def __init__(self, log: Log, selection: Selection, sources: Sequence[Source], scanned: Scanned) -> None:
        self._log = log
        self._selection = selection
        self._sources = sources
        self._scanned = scanned
        self._ends: dict[Source, int] = {}  # up to where everything was read

    async def all(self) -> AsyncIterator[Entry]:
        """From the oldest on, up to the end there is now."""
        async with AsyncExitStack() as stack:
            waiting = []
            for number, source in enumerate(self._sources):
                reading = self._wanted(source, await self._first(source), await self._end(source))
                await stack.enter_async_context(aclosing(reading))
                waiting += await _next(number, reading)
            heapq.heapify(waiting)
            while waiting:
                _, number, entry, reading = heapq.heappop(waiting)
                yield entry
                for following in await _next(number, reading):
                    heapq.heappush(waiting, following)

    async def newest(self, count: int) -> list[Entry]:
        """The last ones, the oldest of them first. At most `count` of each partition are in memory."""
        found = _merged([await self._newest_of(source, count) for source in self._sources])
        return found[-count:] if count else []

    async def follow(self) -> AsyncIterator[list[Entry]]:
        """New ones as they are stored, without end, from where `newest` or `all` has stopped. Lists may be empty."""
        for source in self._sources:
            self._ends.setdefault(source, await self._log.last_sequence(source.stream))
        while True:
            found = []
            for source in self._sources:
                after = self._ends[source]
                last = self._ends[source] = min(await self._log.last_sequence(source.stream), after + ROUND_MAX)
                found.append([entry async for entry in self._wanted(source, after + 1, last)])
            yield _merged(found)
            await asyncio.sleep(FOLLOW_S)

    async def _newest_of(self, source: Source, count: int) -> list[Entry]:
        first, high, window = await self._first(source), await self._end(source), max(WINDOW, count)
        found: deque[Entry] = deque()
        while high >= first and len(found) < count:
            low = max(first, high - window + 1)
            newest = deque([entry async for entry in self._wanted(source, low, high)], maxlen=count - len(found))
            found.extendleft(reversed(newest))
            high, window = low - 1, min(4 * window, WINDOW_MAX)
        return list(found)

    async def _wanted(self, source: Source, first: int, last: int) -> AsyncGenerator[Entry]:
        selection = self._selection
        if first > last:
            return
        reading = self._log.read(source.stream, subject=source.subject, after_sequence=first - 1, up_to_sequence=last)
        async for delivery in reading:
            self._scanned(delivery.stream, delivery.sequence)
            if selection.may_want(delivery):
                if selection.wants(entry := Entry.of(delivery)):
                    yield entry
            elif selection.is_over(delivery):
                return

    async def _first(self, source: Source) -> int:
        since = self._selection.since
        if since is None:
            return 1
        return await first_since(self._log, source.stream, round(since.timestamp() * 1000))

    async def _end(self, source: Source) -> int:
        self._ends[source] = await self._log.last_sequence(source.stream)
        return self._ends[source]


def _merged(of_sources: list[list[Entry]]) -> list[Entry]:
    return list(heapq.merge(*of_sources, key=lambda entry: entry.delivery.stored_at))


async def _next(number: int, reading: AsyncGenerator[Entry]) -> list[tuple[float, int, Entry, AsyncGenerator[Entry]]]:
    """The next one of a stream, as the heap has it; none at its end."""
    entry = await anext(reading, None)
    return [] if entry is None else [(entry.delivery.stored_at.timestamp(), number, entry, reading)]
