"""Slices: the events of a partition, divided so that several processes fold them at once.

A slice is what a partition would be, were there more of them: an aggregate's events are all in one.
"""

from typing import NamedTuple

from domain.ids import partition_of, slot_of, user_slot
from streams import subjects


class Slice(NamedTuple):
    """One of the parts of a partition.

    Attributes:
        number: from 0 up to `of`, not included; `number` modulo the partitions of the deployment is the partition.
        of: how many slices the family has; a multiple of its partitions.
        is_whole: whether it is all of the partition.
    """

    family: str
    partition: int
    number: int
    of: int
    is_whole: bool

    @property
    def stream(self) -> str:
        """The partition's stream."""
        return subjects.stream(self.family, self.partition)

    def has(self, subject: str) -> bool:
        """Whether an event of the partition's stream is in this slice. What has no rows is in the partition's first."""
        if self.is_whole:
            return True
        id_ = subjects.aggregate_id(subject)
        if self.family == subjects.USER:
            slot = user_slot(id_)
        elif id_.isdecimal():
            slot = slot_of(int(id_))
        else:
            return self.number == self.partition
        return partition_of(slot, self.of) == self.number


def slices_of(family: str, partitions: int, parts: int) -> list[Slice]:
    """All slices of a family, each partition in as many parts."""
    of = partitions * parts
    return [Slice(family, number % partitions, number, of, parts == 1) for number in range(of)]
