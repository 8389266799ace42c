"""How far long work is: told to whoever looks on."""

from collections.abc import Callable
from typing import Final, TypeAlias

# The phase that the work is in, what is done of it, and how much there is in all: 0 where it cannot be counted.
Tell: TypeAlias = Callable[[str, int, int], None]

EVERY: Final = 1_000  # things between two tellings of a counter


def untold(phase: str, done: int, total: int) -> None:
    """For where nobody looks on."""


class Counter:
    """Counts small things that a phase goes through, and tells of every thousandth and of the last; of few, nothing."""

    def __init__(self, tell: Tell, phase: str, total: int) -> None:
        self._tell = tell
        self._phase = phase
        self._total = total
        self._done = 0
        self._is_worth_it = total >= EVERY
        if self._is_worth_it:
            tell(phase, 0, total)

    def passed(self) -> None:
        """One more is done."""
        self._done += 1
        if self._is_worth_it and (self._done % EVERY == 0 or self._done == self._total):
            self._tell(self._phase, self._done, self._total)
