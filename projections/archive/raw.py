"""Events as the table `events` has them, and back: byte for byte the delivery that the log gave.

Four headers of an event are columns, in which they compress to almost nothing, and are left out of `headers`. A record
that does not have all four as Riverrun writes them is none of ours: it has version 0, and keeps all its headers.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from streams import codec, subjects
from streams.ports import Delivery

TABLE: Final = "events"
COLUMNS: Final = (
    *("stream", "sequence", "subject", "type", "version", "occurred_at", "actor"),
    *("stored_at", "headers", "data", "digest"),
)
# What `delivery_of` takes.
SELECT: Final = "stream, sequence, subject, type, version, occurred_at, actor, stored_at, headers, data"
BINARY: Final = ("data",)

_IN_COLUMNS: Final = (subjects.TYPE, subjects.VERSION, subjects.OCCURRED_AT, subjects.ACTOR)


def row_of(delivery: Delivery, digest: int) -> tuple[Any, ...]:
    """The row of an event and its `chain.digest`, as `COLUMNS`."""
    place = (delivery.stream, delivery.sequence, delivery.subject)
    event, headers = _event(delivery.headers), dict(delivery.headers)
    if event is None:
        event = ("", 0, delivery.stored_at, "")
    else:
        for name in _IN_COLUMNS:
            del headers[name]
    return (*place, *event, delivery.stored_at, headers, delivery.data, digest)


def columns_of(rows: Iterable[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Rows of `row_of`, at least one, by columns."""
    return dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))


def delivery_of(row: Sequence[Any]) -> Delivery:
    """The delivery of a row of `SELECT`."""
    stream, sequence, subject, type_, version, occurred_at, actor, stored_at, headers, data = row
    if version:
        headers = _headers(type_, version, occurred_at, actor) | headers
    return Delivery(stream, sequence, subject, data, headers, stored_at)


def _event(headers: Mapping[str, str]) -> tuple[str, int, datetime, str] | None:
    """What the columns say of an event of ours; `None` when they could not give back its headers."""
    try:
        version, occurred_at = codec.event_version(headers), codec.occurred_at(headers)
        type_, actor = headers[subjects.TYPE], headers[subjects.ACTOR]
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    as_written = (
        str(version) == headers[subjects.VERSION] and _milliseconds(occurred_at) == headers[subjects.OCCURRED_AT]
    )
    return (type_, version, occurred_at, actor) if version >= 1 and as_written else None


def _headers(type_: str, version: int, occurred_at: datetime, actor: str) -> dict[str, str]:
    return dict(zip(_IN_COLUMNS, (type_, str(version), _milliseconds(occurred_at), actor), strict=True))


def _milliseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))
