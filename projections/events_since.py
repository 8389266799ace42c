"""The events of many conversations since a sequence, in time that does not grow with their histories.

Events are stored by version, and what is asked for is said by sequence. Both rise together in a conversation, so its
newest events are read backwards, a few first and more only where all of those were asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from projections.pages import StoredEvent
from projections.reading import Row, Snapshot
from streams.public import rfc3339

FIRST_MAX = 16  # events of a conversation in the first look; most have fewer that are new

_SINCE = """
    SELECT wanted.number, found.type, found.version, found.occurred_at, found.actor_id, found.data, found.sequence
    FROM unnest(%(ids)s::int8[], %(floors)s::int8[], %(ceilings)s::int8[], %(afters)s::int8[], %(untils)s::int8[])
            WITH ORDINALITY AS wanted (id, floor, ceiling, after, until, number)
        CROSS JOIN LATERAL (
            SELECT type, version, occurred_at, actor_id, data, sequence FROM changes
            WHERE conversation_id = wanted.id AND version > wanted.floor AND version <= wanted.ceiling
                AND sequence <= wanted.until
            ORDER BY version DESC LIMIT %(most)s) found
    WHERE found.sequence > wanted.after"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of a conversation: after a sequence, up to one; above a version, up to one."""

    conversation_id: int
    after: int
    until: int
    floor: int
    ceiling: int = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Since:
    """Events of a conversation by version, ascending, with their sequences; the newest when there are more."""

    events: list[StoredEvent]
    sequences: list[int]
    truncated: bool


NOTHING = Since([], [], False)


async def read_events_since(snapshot: Snapshot, wanted: Sequence[Wanted], *, most: int) -> dict[int, Since]:
    """For each conversation the newest `most` of the wanted events; those without any are left out."""
    first = min(FIRST_MAX, most)
    found = await _read(snapshot, wanted, first)
    if first < most:
        found |= await _read(snapshot, [one for one, since in found.items() if since.truncated], most)
    return {one.conversation_id: since for one, since in found.items()}


async def read_first_events_since(snapshot: Snapshot, wanted: Sequence[Wanted]) -> dict[Wanted, Since]:
    """The newest few of the wanted events, by what was wanted; what has none is left out."""
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
    return {wanted[number]: _since(wanted[number].conversation_id, rows, most) for number, rows in found.items()}


def _since(conversation_id: int, rows: list[Row], most: int) -> Since:
    rows.sort(key=lambda row: -row[2])
    newest = rows[:most][::-1]
    events = [
        StoredEvent(type_, str(conversation_id), version, rfc3339(occurred_at), actor_id, msgspec.Raw(data))
        for _, type_, version, occurred_at, actor_id, data, _ in newest
    ]
    return Since(events, [row[6] for row in newest], len(rows) > most)
