"""Where aggregates' subjects end, as far as it is known: what spares an insert the question."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

TAILS_MAX = 10_000  # some 300 bytes each


@dataclass(frozen=True, slots=True)
class Tail:
    """The sequence of an aggregate's newest event, and the highest version up to it. It was the end once."""

    sequence: int
    version: int


NEW: Final = Tail(0, -1)  # of an aggregate without events


class Tails:
    """Those of the aggregates that were read or written last, by subject."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    def get(self, subject: str) -> Tail | None:
        """The newest that is known."""
        return self._tails.get(subject)

    def remember(self, subject: str, tail: Tail) -> None:
        """Know it from now on, unless a newer one is known."""
        known = self._tails.pop(subject, NEW)
        self._tails[subject] = max(known, tail, key=lambda one: one.sequence)
        if len(self._tails) > TAILS_MAX:
            self._tails.popitem(last=False)
