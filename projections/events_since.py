"""The events of many conversations since a sequence, in time that does not grow with their histories.

Events are stored by version, and what is asked for is said by sequence. Both rise together in a conversation, so its
newest events are read backwards, a few first and more only where all of those were asked for.

Only the warm tier is read. Where what is asked for reaches back into the cold one, the events are truncated there, as
they are when there are too many: who wants all of them reads the conversation's own events, through all tiers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from projections.pages import StoredEvent
from projections.reading import Row, Snapshot
from streams.public import rfc3339

FIRST_MAX = 16  # events of a conversation in the first look; most have fewer that are new

_NO_CEILING = (1 << 63) - 1

_SINCE = """
    SELECT wanted.number, found.type, found.version, found.occurred_at, found.actor_id, found.data, found.sequence,
        found.older
    FROM unnest(%(ids)s::int8[], %(floors)s::int8[], %(ceilings)s::int8[], %(afters)s::int8[], %(untils)s::int8[])
            WITH ORDINALITY AS wanted (id, floor, ceiling, after, until, number)
        CROSS JOIN LATERAL (
            SELECT *, lead(version) OVER (ORDER BY version DESC) AS older FROM (
                SELECT type, version, occurred_at, actor_id, data, sequence FROM changes
                WHERE conversation_id = wanted.id AND version > wanted.floor AND version <= wanted.ceiling
                    AND sequence <= wanted.until
                ORDER BY version DESC LIMIT %(most)s) newest) found
    WHERE found.sequence > wanted.after"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of a conversation: after a sequence, up to one; above a version, up to one."""

    conversation_id: int
    after: int
    until: int
    floor: int
    ceiling: int = _NO_CEILING


@dataclass(frozen=True, slots=True)
class Since:
    """Events of a conversation by version, ascending, with their sequences; the newest when there are more."""

    events: list[StoredEvent]
    sequences: list[int]
    truncated: bool


NOTHING = Since([], [], False)
_ALL_COLD = Since([], [], True)


async def read_events_since(snapshot: Snapshot, wanted: Sequence[Wanted], *, most: int) -> dict[int, Since]:
    """For each conversation the newest `most` of the wanted events, of which there is at least one.

    One that none is found of has them all in the cold tier: it is truncated, and empty.
    """
    first = min(FIRST_MAX, most)
    found = await _read(snapshot, wanted, first)
    if first < most:
        found |= await _read(snapshot, [one for one, since in found.items() if since.truncated], most)
    return {one.conversation_id: since for one, since in found.items()}


async def read_first_events_since(snapshot: Snapshot, wanted: Sequence[Wanted]) -> dict[Wanted, Since]:
    """As `read_events_since`, the newest few, by what was wanted."""
    return await _read(snapshot, list(dict.fromkeys(wanted)), FIRST_MAX)


async def _read(snapshot: Snapshot, wanted: Sequence[Wanted], most: int) -> dict[Wanted, Since]:
    if not wanted:
        return {}
    values = {
        "ids": [one.conversation_id for one in wanted],
        "floors": [one.floor for one in wanted],
        "ceilings": [one.ceiling for one in wanted],
        "afters": [one.after for one in wanted],
        "untils": [one.until for one in wanted],
        "most": most + 1,
    }
    found: dict[int, list[Row]] = {}
    for row in await snapshot.rows(_SINCE, values):
        found.setdefault(row[0] - 1, []).append(row)
    return {
        one: _since(one, found[number], most) if number in found else _ALL_COLD for number, one in enumerate(wanted)
    }


def _since(wanted: Wanted, rows: list[Row], most: int) -> Since:
    rows.sort(key=lambda row: -row[2])
    if wanted.ceiling != _NO_CEILING and rows[0][2] != wanted.ceiling:
        return _ALL_COLD
    newest = [rows[0]]
    for row in rows[1:most]:
        if row[2] != newest[-1][2] - 1:  # what is between is cold
            break
        newest.append(row)
    newest.reverse()
    oldest, older = newest[0][2], newest[0][7]
    # Complete where the one before was not asked for: it is there, and was stored too early, or is below the floor.
    is_whole = len(rows) == len(newest) and (older == oldest - 1 or oldest == wanted.floor + 1)
    events = [
        StoredEvent(type_, str(wanted.conversation_id), version, rfc3339(occurred_at), actor_id, msgspec.Raw(data))
        for _, type_, version, occurred_at, actor_id, data, *_ in newest
    ]
    return Since(events, [row[6] for row in newest], not is_whole)
