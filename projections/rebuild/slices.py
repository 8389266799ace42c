"""Slices: the events of a partition, divided so that several are folded at once.

A slice is what a partition would be, were there more of them: an aggregate's events are all in one. A process has a
portion of a partition: some slices, which it reads together, once.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from domain.ids import partition_of, slot_of, user_slot
from streams import subjects
from streams.ports import Delivery

SLICES: Final = 2  # slices in a portion: while Postgres works on the one, the rows of the other are made


class Portion(NamedTuple):
    """What one process folds of a partition.

    Attributes:
        numbers: of its slices, each from 0 up to `of`, not included; modulo the partitions of the deployment each is
            the partition.
        of: how many slices the family has; a multiple of its partitions.
        is_whole: whether it is all of the partition.
    """

    family: str
    partition: int
    numbers: tuple[int, ...]
    of: int
    is_whole: bool

    @property
    def stream(self) -> str:
        """The partition's stream."""
        return subjects.stream(self.family, self.partition)

    def has(self, subject: str) -> bool:
        """Whether an event of the partition's stream is in this portion."""
        return self.is_whole or self._slice_of(subject) in self.numbers

    def divided(self, deliveries: Iterable[Delivery]) -> dict[int, list[Delivery]]:
        """Events of this portion by the slice they are in, in the order they had; of slices that have any."""
        divided: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            divided.setdefault(self._slice_of(delivery.subject), []).append(delivery)
        return divided

    def _slice_of(self, subject: str) -> int:
        number = _slice_of(self.family, self.of, subject)
        return self.partition if number is None else number  # what has no rows is in the partition's first


def portions_of(family: str, partitions: int, parts: int) -> list[Portion]:
    """All of a family: each partition in as many portions."""
    count = partitions * parts
    of = count * SLICES
    return [Portion(family, n % partitions, tuple(range(n, of, count)), of, parts == 1) for n in range(count)]


@lru_cache(maxsize=1 << 16)  # of what is written in by turns
def _slice_of(family: str, of: int, subject: str) -> int | None:
    id_ = subjects.aggregate_id(subject)
    if family == subjects.USER:
        return partition_of(user_slot(id_), of)
    return partition_of(slot_of(int(id_)), of) if id_.isdecimal() else None
