"""A shadow: a draft that follows what is in force, made by code that is not trusted yet, and never takes its place.

After each look both stand at the very same place in the log, so a difference is none of time. The first look is at
everything, each later one at what has happened since.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import msgspec

from domain import events
from domain.events import Event
from projections.differences import SHOWN_MAX, Difference
from projections.projection import LoggedEvent
from projections.rebuild.comparing import Comparison, compare
from projections.rebuild.loading import Died
from projections.rebuild.positions import as_of_now
from projections.rebuild.rebuilding import Rebuilder
from streams import subjects

LOOK_S: Final = 1.0  # between two looks
OPEN_MAX: Final = 10_000  # differences of a table that are kept in mind; more than these says enough

Key: TypeAlias = tuple[str, int | str]  # a table, and a conversation or a user
# Told of a difference, and whether it is one now, or has gone.
OnDifference: TypeAlias = Callable[[Difference, bool], None]


@dataclass(slots=True)
class Shadowed:
    """What a shadow has seen.

    Attributes:
        compared: of each table how much was looked at, all looks together, and how many differences there are now.
        died: events that could not be applied to the shadow.
        events: that came while it followed.
    """

    names: Sequence[str]
    looks: int = 0
    events: int = 0
    compared: dict[str, Comparison] = field(default_factory=dict)
    differences: dict[Key, Difference] = field(default_factory=dict)
    died: Sequence[Died] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "projections": list(self.names),
            "looks": self.looks,
            "events": self.events,
            "equal": not self.differences,
            "tables": {name: one.as_dict() for name, one in self.compared.items()},
            "differences": [difference.as_dict() for difference in list(self.differences.values())[:SHOWN_MAX]],
            "not_applied": [msgspec.structs.asdict(died) for died in self.died[:SHOWN_MAX]],
        }


async def shadow(
    rebuilder: Rebuilder,
    names: Sequence[str],
    *,
    stop: asyncio.Event,
    seconds: float | None = None,
    on_difference: OnDifference,
) -> Shadowed:
    """Follow what is in force, until `stop` is set or for some time from the first look on; that is made in any case.

    Raises:
        NothingInForce: the projections have never run. As `Rebuilder.rebuild` otherwise.
    """
    shadowed, touched = Shadowed(names), _Touched()
    async with rebuilder.drafted(names, await rebuilder.in_force(names), moving=True) as building:
        shadowed.died = building.deaths.died
        rebuilder.tell("shadowing", 0, 0)
        clock = asyncio.get_running_loop().time
        until_s = None
        while True:
            async with as_of_now(building.live) as there:
                if await rebuilder.brought_to(there, building, on_applied=touched.add):
                    async with building.pool.connection() as draft:
                        keys = touched.taken() if shadowed.looks else None
                        found = await compare(building.live, draft, names, keys=keys, named_max=OPEN_MAX)
                    _settle(shadowed, found, keys, on_difference)
                    shadowed.looks += 1
                    shadowed.events = touched.events
            if until_s is None and seconds is not None:
                until_s = clock() + seconds
            left_s = LOOK_S if until_s is None else min(LOOK_S, until_s - clock())
            if stop.is_set() or left_s <= 0:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), left_s)
    return shadowed


def _settle(
    shadowed: Shadowed,
    found: Sequence[Comparison],
    keys: dict[str, Collection[int | str]] | None,
    on_difference: OnDifference,
) -> None:
    """Take in what a look has found: what differs now, and what does no more."""
    for one in found:
        before = shadowed.compared.setdefault(one.table, replace(one, key_count=0, rows=0, differences=[]))
        before.key_count += one.key_count
        before.rows += one.rows
        now = {_key(difference): difference for difference in one.differences}
        looked_at = None if keys is None else keys.get(one.family, ())
        for key, difference in list(shadowed.differences.items()):
            if key[0] == one.table and key not in now and (looked_at is None or key[1] in looked_at):
                del shadowed.differences[key]
                on_difference(difference, False)
        for key, difference in now.items():
            if shadowed.differences.get(key) != difference:
                shadowed.differences[key] = difference
                on_difference(difference, True)
        before.different = sum(table == one.table for table, _ in shadowed.differences)


def _key(difference: Difference) -> Key:
    id_ = difference.user_id if difference.conversation_id is None else difference.conversation_id
    assert id_ is not None
    return difference.where, id_


_OF_USERS: Final = frozenset((*events.OF_USERS, events.UserCreated))


class _Touched:
    """The conversations and users of events since the last look."""

    def __init__(self) -> None:
        self.events = 0
        self._keys: dict[str, set[int | str]] = defaultdict(set)

    def add(self, batch: Sequence[LoggedEvent]) -> None:
        """Take note of events that were applied."""
        self.events += len(batch)
        for _, event in batch:
            self._add(event)

    def _add(self, event: Event) -> None:
        if type(event) in _OF_USERS:
            self._keys[subjects.USER].add(event.originator_id)
        elif event.originator_id.isdecimal():
            self._keys[subjects.CONV].add(int(event.originator_id))

    def taken(self) -> dict[str, Collection[int | str]]:
        """By family; from now on there are others."""
        keys, self._keys = self._keys, defaultdict(set)
        return dict(keys)
