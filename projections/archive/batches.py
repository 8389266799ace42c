"""What is archived at once, and why it is archived exactly once.

ClickHouse forgets a block that it is given again under the same token, but only a block of the same rows. So the bounds
of a batch are settled before anything of it is stored, in the log itself: a record in the stream `ARCHIVE`, appended on
the condition that the stream ends where it was last seen. Of two archivers that both think that a partition is theirs
one settles the next bounds, and the other finds out; and whoever comes after a crash stores the same batch again, under
the same tokens, which changes nothing where it was stored already.

The last row of a batch is the one in `archive_batches`: with it the batch is archived, and the place has moved.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from projections.archive import chain, raw
from projections.archive.clickhouse import ClickHouse
from projections.archive.typed import MAKERS, PLACE, TABLES, Row
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery, Log, Record, WrongSequence

TURN_EVENTS: Final = 64  # that rows are made of in one turn of the loop: about half a millisecond

log_ = structlog.get_logger(__name__)

_NEWEST: Final = """
    SELECT last_sequence, chain FROM archive_batches WHERE stream = {stream:String}
    ORDER BY last_sequence DESC LIMIT 1"""


class Bounds(msgspec.Struct, frozen=True):
    """The first and the last sequence of a batch."""

    first: int
    last: int


class Anchor(NamedTuple):
    """Up to where a stream is archived, and the chain's link there."""

    sequence: int
    link: bytes


class Made(NamedTuple):
    """What a batch is stored as: the columns of each table, in the order of storing; and the chain's link after it."""

    events: int
    undecodable: int
    tables: dict[str, Mapping[str, Sequence[Any]]]
    link: bytes


class Batches:
    """The batches of one stream.

    Attributes:
        anchor: of the newest that is archived, as of the last `newest` or `store`.
    """

    def __init__(self, log: Log, clickhouse: ClickHouse, stream: str) -> None:
        self.anchor = Anchor(0, chain.FIRST)
        self._log = log
        self._clickhouse = clickhouse
        self._stream = stream
        self._subject = subjects.archive(stream)
        self._link = chain.FIRST  # after the newest batch that was made
        self._ledger_end = 0  # of ARCHIVE, as last seen
        self._settled: Bounds | None = None

    async def newest(self) -> Anchor:
        """Ask the archive for the newest batch."""
        rows = await self._clickhouse.query(_NEWEST, {"stream": self._stream})
        self.anchor = Anchor(int(rows[0][0]), bytes.fromhex(rows[0][1])) if rows else Anchor(0, chain.FIRST)
        self._link = self.anchor.link
        return self.anchor

    async def settled(self) -> Bounds | None:
        """The bounds that were last settled for this stream, by whomever."""
        self._ledger_end = await self._log.last_sequence(subjects.ARCHIVE)
        record = await self._log.last(subjects.ARCHIVE, self._subject)
        self._settled = msgspec.json.decode(record.data, type=Bounds) if record else None
        return self._settled

    async def settle(self, bounds: Bounds) -> bool:
        """Settle the bounds of the next batch; `False` if another has settled some meanwhile.

        Raises:
            LogError: whether they are settled is not known: ask `settled`.
        """
        before = self._settled
        record = Record(self._subject, msgspec.json.encode(bounds))
        while True:
            try:
                end = await self._log.append(subjects.ARCHIVE, [record], expected_last_sequence=self._ledger_end)
            except WrongSequence:  # mostly the archiver of another stream
                if await self.settled() != before:
                    return False
            else:
                self._ledger_end, self._settled = end, bounds
                return True

    async def make(self, deliveries: Sequence[Delivery]) -> Made:
        """Make the rows of the next batch: the one after that which was made last, or which `newest` found."""
        link, events = self._link, []
        async for part in _in_turns(deliveries):
            for delivery in part:
                link, digest = chain.link_and_digest(link, delivery)
                events.append(raw.row_of(delivery, digest))
        typed, undecodable = await _typed(deliveries)
        self._link = link
        return Made(len(events), undecodable, {raw.TABLE: raw.columns_of(events), **typed}, link)

    async def store(self, bounds: Bounds, made: Made) -> None:
        """Store a batch whose bounds are settled. Again, it changes nothing."""
        token = f"{self._stream}:{bounds.first}-{bounds.last}"
        for name, columns in made.tables.items():
            await self._clickhouse.insert(name, columns, token=token)
        row = {
            "stream": self._stream,
            "first_sequence": bounds.first,
            "last_sequence": bounds.last,
            "events": made.events,
            "undecodable": made.undecodable,
            "chain": made.link.hex(),
        }
        await self._clickhouse.insert("archive_batches", {name: [value] for name, value in row.items()}, token=token)
        self.anchor = Anchor(bounds.last, made.link)


async def _in_turns(deliveries: Sequence[Delivery]) -> AsyncIterator[Sequence[Delivery]]:
    """A part after the other, with pauses in which others have the loop, such as a gateway in this process.

    In a thread the work would have the interpreter whenever the loop waits for the system, up to 5 ms each time:
    CPython's switch interval.
    """
    for start in range(0, len(deliveries), TURN_EVENTS):
        yield deliveries[start : start + TURN_EVENTS]
        await asyncio.sleep(0)


async def _typed(deliveries: Sequence[Delivery]) -> tuple[dict[str, Mapping[str, Sequence[Any]]], int]:
    """The rows of typed tables, by columns; and how many events have none because they cannot be decoded."""
    rows: dict[str, list[Row]] = {table.name: [] for table in TABLES}
    undecodable = 0
    async for part in _in_turns(deliveries):
        for delivery in part:
            try:
                made = rows_of(delivery)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's, and the raw event is kept
                undecodable += 1
                log_.error(
                    "event archived raw only: it cannot be decoded",
                    stream=delivery.stream,
                    sequence=delivery.sequence,
                    subject=delivery.subject,
                    error=f"{type(error).__name__}: {' '.join(str(error).split())}",
                )
                continue
            for name, row in made:
                rows[name].append(row)
    return {
        table.name: dict(zip((*table.columns, *PLACE), zip(*rows[table.name], strict=True), strict=True))
        for table in TABLES
        if rows[table.name]
    }, undecodable


def rows_of(delivery: Delivery) -> list[tuple[str, Row]]:
    """The rows of typed tables that are made of an event, by table. Of what cannot be decoded: whatever that raises."""
    event = decode(delivery)
    place = (delivery.stream, delivery.sequence)
    return [(name, (*row, *place)) for name, make_rows in MAKERS.get(type(event), ()) for row in make_rows(event)]
