"""Events by their names: a place in the log, a message's id or seq, or versions of a conversation."""

import re
from collections.abc import AsyncIterator
from typing import Final

from domain.errors import Invalid
from domain.ids import parse_id, partition_of, slot_of
from runtime.events.entry import Entry, version_of
from runtime.tracing.locate import NotFound, locate
from streams import subjects
from streams.ports import Log

VERSIONS_MAX: Final = 1_000  # in one asking

_PLACE: Final = re.compile(r"([A-Za-z]+-\d{1,4}):(\d{1,19})")
_VERSIONS: Final = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")


class NamedBadly(Exception):
    """This names no event there is. One plain line."""


async def named(log: Log, name: str, versions: str | None, *, partitions: int) -> AsyncIterator[Entry]:
    """The events that are named, in order.

    Args:
        name: `CONV-0:17`, `MESSAGE_ID`, `CONVERSATION_ID:SEQ`; with `versions` a conversation's id.
        versions: `7`, or `7-12`.

    Raises:
        NamedBadly: there is no such event. LogUnavailable.
    """
    if versions is not None:
        async for entry in _of_versions(log, name, versions, partitions):
            yield entry
    elif place := _PLACE.fullmatch(name):
        yield await _at(log, place[1].upper(), int(place[2]), partitions)
    else:
        try:
            yield Entry.of((await locate(log, name, partitions=partitions, sequence_of=_unknown)).delivery)
        except NotFound as error:
            raise NamedBadly(f"{error}; an event's place is written as CONV-0:17") from None


async def _at(log: Log, stream: str, sequence: int, partitions: int) -> Entry:
    known = [subjects.stream(family, number) for family in subjects.FAMILIES for number in range(partitions)]
    if stream not in known:
        raise NamedBadly(f"there is no stream {stream}: {known[0]} to {known[-1]}")
    async for delivery in log.read(stream, after_sequence=sequence - 1, up_to_sequence=sequence):
        return Entry.of(delivery)
    raise NamedBadly(f"{stream} has no event {sequence:,}; it ends at {await log.last_sequence(stream):,}")


async def _of_versions(log: Log, name: str, versions: str, partitions: int) -> AsyncIterator[Entry]:
    found = _VERSIONS.fullmatch(versions)
    try:
        id_ = parse_id(name)
    except Invalid:
        raise NamedBadly(f"{name!r} is no conversation's id, and --versions are of one") from None
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last or last - first >= VERSIONS_MAX:
        raise NamedBadly(f"--versions {versions!r}: one like 7 or 7-12 is expected, {VERSIONS_MAX:,} at most")
    partition = partition_of(slot_of(id_), partitions)
    subject, newest = subjects.aggregate(subjects.CONV, partition, name), 0
    async for delivery in log.read(subjects.stream(subjects.CONV, partition), subject=subject):
        newest = version_of(delivery) or newest
        if newest > last:
            return
        if newest >= first:
            yield Entry.of(delivery)
    if newest < first:
        raise NamedBadly(f"there is no conversation {id_}" if newest == 0 else f"{id_} is at version {newest}")


async def _unknown(_conversation_id: int, _seq: int) -> int | None:
    return None
