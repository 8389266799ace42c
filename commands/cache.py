"""The aggregates a writer holds in memory, bounded in bytes; what was used longest ago goes first."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from domain.conversations import Conversation
from domain.pairs import Pair
from domain.reservations import Reservation
from domain.users import User

AnyAggregate: TypeAlias = Conversation | Pair | Reservation | User
ABSENT_BYTES = 300  # an entry that says "the log has no such aggregate", or a reservation


@dataclass(slots=True)
class Loaded:
    """An aggregate as the log has it, or that the log has none.

    Attributes:
        snapshot_version: the version of the newest snapshot known of, 0 for none.
    """

    aggregate: AnyAggregate | None
    snapshot_version: int = 0

    @property
    def size_bytes(self) -> int:
        """About how much memory it holds."""
        aggregate = self.aggregate
        return ABSENT_BYTES if aggregate is None or isinstance(aggregate, Reservation) else aggregate.size_bytes


class AggregateCache:
    """Not for threads. Entries hold only while the writer's fence does: after a conflict, `clear`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Loaded, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, aggregate_id: str) -> Loaded | None:
        """The entry of an aggregate, now the most recently used; `None` if it is not in memory."""
        entry = self._entries.get(aggregate_id)
        if entry is None:
            return None
        self._entries.move_to_end(aggregate_id)
        return entry[0]

    def put(self, aggregate_id: str, loaded: Loaded) -> None:
        """Hold an aggregate, or weigh it again after it grew."""
        self.drop(aggregate_id)
        size_bytes = loaded.size_bytes
        self._entries[aggregate_id] = (loaded, size_bytes)
        self.size_bytes += size_bytes

    def shrink(self) -> None:
        """Drop what was used longest ago until the rest fits. Call only when nothing undecided is in an entry."""
        while self.size_bytes > self._max_bytes and len(self._entries) > 1:
            self.drop(next(iter(self._entries)))

    def drop(self, aggregate_id: str) -> None:
        """Forget one aggregate."""
        entry = self._entries.pop(aggregate_id, None)
        if entry is not None:
            self.size_bytes -= entry[1]

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)
