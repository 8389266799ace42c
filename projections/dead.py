"""Dead events: those that a projection could not apply, buried in `DEAD` and listed.

DEAD itself is a log: that an event was applied after all is one more record in it.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import structlog

from streams import subjects
from streams.ports import Delivery, Log, Record

STREAM: Final = "DEAD"
ERROR_MAX: Final = 500  # characters of an error kept with a dead event

log_ = structlog.get_logger(__name__)


class DeadEvent(NamedTuple):
    """One event that one projection passed over.

    Attributes:
        number: its sequence in DEAD.
        stream, sequence, subject: where it is in the log.
    """

    number: int
    projection: str
    stream: str
    sequence: int
    subject: str
    error: str

    @property
    def aggregate(self) -> tuple[str, str, str]:
        """What is folded anew at once: of which projection, and which aggregate."""
        return (self.projection, self.stream, self.subject)


async def bury(log: Log, projection: str, delivery: Delivery, reason: str) -> None:
    """Keep an event that a projection cannot apply.

    Raises:
        LogUnavailable: it was not kept.
    """
    log_.error(
        "event not applied, kept in DEAD",
        projection=projection,
        stream=delivery.stream,
        sequence=delivery.sequence,
        subject=delivery.subject,
        correlation_id=delivery.headers.get(subjects.CORRELATION),
        error=reason,
    )
    headers = {
        **delivery.headers,
        subjects.DEAD_STREAM: delivery.stream,
        subjects.DEAD_SEQUENCE: str(delivery.sequence),
        subjects.DEAD_SUBJECT: delivery.subject,
        # A header is one line of ASCII.
        subjects.DEAD_ERROR: reason[:ERROR_MAX].encode("ascii", "backslashreplace").decode(),
    }
    subject = _subject(projection, delivery.stream)
    await log.publish_dead(subject, Record(subject, delivery.data, headers))


def reason_of(error: Exception) -> str:
    """Why an event could not be applied, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


async def mark_replayed(log: Log, dead: Iterable[DeadEvent]) -> None:
    """Take events that were applied after all off the list.

    Raises:
        LogUnavailable: not all were.
    """
    for event in dead:
        subject = _subject(event.projection, event.stream)
        await log.publish_dead(subject, Record(subject, b"", {subjects.DEAD_REPLAYED: str(event.number)}))


async def dead_events(log: Log) -> list[DeadEvent]:
    """Those that were not replayed since, in the order they died.

    Raises:
        LogUnavailable: the log cannot be reached.
    """
    found: dict[int, DeadEvent] = {}
    async for delivery in log.read(STREAM):
        headers = delivery.headers
        if (replayed := headers.get(subjects.DEAD_REPLAYED)) is not None:
            found.pop(int(replayed), None)
            continue
        found[delivery.sequence] = DeadEvent(
            delivery.sequence,
            delivery.subject.split(".")[1],
            headers[subjects.DEAD_STREAM],
            int(headers[subjects.DEAD_SEQUENCE]),
            headers[subjects.DEAD_SUBJECT],
            headers[subjects.DEAD_ERROR],
        )
    return list(found.values())


def by_aggregate(dead: Sequence[DeadEvent]) -> list[list[DeadEvent]]:
    """Those of each aggregate and projection together, which are replayed at once."""
    ordered = sorted(dead, key=lambda event: (event.aggregate, event.number))
    return [list(group) for _, group in groupby(ordered, key=lambda event: event.aggregate)]


def _subject(projection: str, stream: str) -> str:
    return subjects.dead(projection, int(stream.rpartition("-")[2]))
