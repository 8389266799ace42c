"""Which pairs of users are blocked: of those two, neither sees the other type.

The log says it, in the partition of their direct conversation: a pair that was asked about is remembered until an event
of it comes by.
"""

from collections import OrderedDict
from typing import Final

from domain.events import PairBlocked, PairCreated, PairUnblocked
from domain.ids import pair_key
from streams import subjects
from streams.ports import Log

PAIRS_MAX: Final = 50_000  # remembered, about 10 MB; the least recently used make room
PAIR_EVENTS: Final = frozenset({PairCreated.TOPIC, PairBlocked.TOPIC, PairUnblocked.TOPIC})


class BlockedPairs:
    """The pairs of one partition. Its owner passes on each event of a pair."""

    def __init__(self, log: Log, *, partition: int) -> None:
        self._log = log
        self._partition = partition
        self._known: OrderedDict[str, bool] = OrderedDict()
        self._forgotten = 0  # how often something was: what is being read meanwhile may be of before

    def forget(self, key: str) -> None:
        """Something happened to a pair: its key, as in the subject of the event."""
        self._forgotten += 1
        self._known.pop(key, None)

    def clear(self) -> None:
        """Forget all: events may have been left out."""
        self._forgotten += 1
        self._known.clear()

    async def has(self, user_a: str, user_b: str) -> bool:
        """Whether either has blocked the other, as far as a replica of the log knows.

        Raises:
            LogUnavailable: it cannot be told.
        """
        key = pair_key(user_a, user_b).value
        known = self._known.get(key)
        if known is None:
            forgotten = self._forgotten
            known = await self._read(key)
            if forgotten == self._forgotten:
                self._known[key] = known
                if len(self._known) > PAIRS_MAX:
                    self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    async def _read(self, key: str) -> bool:
        stream = subjects.stream(subjects.CONV, self._partition)
        blocked_by: set[str] = set()
        subject = subjects.aggregate(subjects.CONV, self._partition, key)
        async for delivery in self._log.read(stream, subject=subject):
            match delivery.headers.get(subjects.TYPE):
                case PairBlocked.TOPIC:
                    blocked_by.add(delivery.headers[subjects.ACTOR])
                case PairUnblocked.TOPIC:
                    blocked_by.discard(delivery.headers[subjects.ACTOR])
                case _:
                    pass
        return bool(blocked_by)
