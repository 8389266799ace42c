"""Events that the projections of a rebuild could not apply, brought to `DEAD` as a worker's are.

What is there already is not buried twice; what was there, and could be applied now, is taken off the list.
"""

from collections.abc import Sequence

from projections.dead import bury, dead_events, mark_replayed
from projections.rebuild.loading import Applied, Died
from projections.rebuild.source import event_at
from streams.ports import Log


class Deaths:
    """Of one rebuild.

    Attributes:
        died: in the order they were told of.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.died: list[Died] = []
        self._names = names
        self._buried: set[tuple[str, str, int]] = set()

    def tell(self, what: Applied | Died) -> None:
        """Take note, if it is one (`loading.TellLoaded`)."""
        if isinstance(what, Died):
            self.died.append(what)

    async def bury(self, log: Log) -> None:
        """Keep those that are not kept yet. A crash before the draft is in force leaves some that were applied by what
        is: they are listed until they are replayed.

        Raises:
            LogUnavailable: not all are kept.
        """
        if all(died.place in self._buried for died in self.died):
            return
        self._buried |= {(dead.projection, dead.stream, dead.sequence) for dead in await dead_events(log)}
        for died in self.died:
            if died.place not in self._buried:
                await bury(log, died.projection, await event_at(log, died.stream, died.sequence), died.error)
                self._buried.add(died.place)

    async def mark(self, log: Log) -> None:
        """Take off the list what the rebuild could apply.

        Raises:
            LogUnavailable: not all were.
        """
        places = {died.place for died in self.died}
        await mark_replayed(
            log,
            [
                dead
                for dead in await dead_events(log)
                if dead.projection in self._names and (dead.projection, dead.stream, dead.sequence) not in places
            ],
        )
