"""Commands that came too soon, until they may be decided: moves of a read marker within a second of the last one.

Those that wait for the same marker come back together, the one that reads furthest first: it makes the event, and the
others find it done. So a marker costs one event a second, however often it is moved, and the last move is always kept.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from commands.decision import Pending
from domain.users import TooSoon

ASIDES_MAX = 10_000  # commands; one more is refused with `unavailable`


@dataclass(slots=True)
class _Aside:
    timer: asyncio.TimerHandle
    waiting: list[tuple[int, Pending]] = field(default_factory=list)  # with the seq that is asked for


class Asides:
    """Not for threads.

    Args:
        give_back: takes commands whose time has come, in the order to decide them in.
    """

    def __init__(self, give_back: Callable[[list[Pending]], None]) -> None:
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._asides: dict[tuple[str, int], _Aside] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many commands wait."""
        return self._count

    def put(self, pending: Pending, soon: TooSoon, delay_s: float) -> bool:
        """Keep a command for `delay_s`, or as long as those that already wait for the same marker.

        Returns:
            False when there is no room; it is not kept then.
        """
        if self._count >= ASIDES_MAX:
            return False
        # However the clock goes meanwhile, it is not too soon again.
        pending.not_before_ms = round(soon.ready_at.timestamp() * 1000)
        marker = (pending.command.lane, soon.conversation_id)
        aside = self._asides.get(marker)
        if aside is None:
            aside = self._asides[marker] = _Aside(self._loop.call_later(delay_s, self._ripen, marker))
        aside.waiting.append((soon.seq, pending))
        self._count += 1
        return True

    def clear(self) -> list[Pending]:
        """Forget all, and return who waited."""
        waited = []
        for aside in self._asides.values():
            aside.timer.cancel()
            waited += [pending for _, pending in aside.waiting]
        self._asides.clear()
        self._count = 0
        return waited

    def _ripen(self, marker: tuple[str, int]) -> None:
        waiting = self._asides.pop(marker).waiting
        self._count -= len(waiting)
        waiting.sort(key=lambda entry: entry[0], reverse=True)
        self._give_back([pending for _, pending in waiting])
