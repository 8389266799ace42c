"""What the archive has of a stream: its batches, and its events with the digests that were kept beside them."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from projections.archive import chain, raw
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.reading import PIECE
from projections.evidence.findings import ARCHIVE, Finding, Findings
from projections.evidence.parts import SAID_MAX, UNCHECKED
from streams.ports import Delivery

BATCHES_A_QUERY: Final = 10_000

_END: Final = "SELECT max(last_sequence) FROM archive_batches WHERE stream = {stream:String}"
_BATCHES: Final = f"""
    SELECT first_sequence, last_sequence, events, undecodable, chain FROM archive_batches
    WHERE stream = {{stream:String}} AND last_sequence > {{after:UInt64}} AND last_sequence <= {{up_to:UInt64}}
    ORDER BY last_sequence LIMIT {BATCHES_A_QUERY}"""
_ROWS: Final = f"""
    SELECT {", ".join(raw.COLUMNS)} FROM events
    WHERE stream = {{stream:String}} AND sequence >= {{first:UInt64}} AND sequence <= {{last:UInt64}}
        AND intDiv(sequence, {PIECE}) = {{piece:UInt64}}
    ORDER BY sequence"""

_VERSION: Final = raw.COLUMNS.index("version")
_ALONE: Final = frozenset({"type", "version", "actor"})


class Archived(NamedTuple):
    """An event as the archive has it. `intact`: as its digest says, in all columns but `stored_at`."""

    delivery: Delivery
    digest: int
    intact: bool

    @property
    def sequence(self) -> int:
        """Its position."""
        return self.delivery.sequence


class Batch(NamedTuple):
    """A row of `archive_batches`."""

    first: int
    last: int
    events: int
    undecodable: int
    link: str

    @property
    def has_no_hole(self) -> bool:
        """Whether every position in it was an event's."""
        return self.last - self.first + 1 == self.events


class ArchivedEvents:
    """Of one stream.

    Args:
        broken: tables with a part whose checksum does not match.

    All methods raise `ArchiveUnavailable`. What cannot be read is found, and left out.
    """

    def __init__(self, clickhouse: ClickHouse, stream: str, findings: Findings, *, broken: frozenset[str]) -> None:
        self._clickhouse = clickhouse
        self._stream = stream
        self._findings = findings
        self._rows = _ROWS + (UNCHECKED if raw.TABLE in broken else "")
        self._unreadable: set[int] = set()  # pieces

    async def end(self) -> int:
        """Up to where the archive has the stream."""
        ((end,),) = await self._clickhouse.query(_END, {"stream": self._stream})
        return int(end)

    async def batches(self, up_to: int) -> AsyncIterator[Batch]:
        """All batches, in order."""
        after = 0
        while rows := await self._clickhouse.query(_BATCHES, {"stream": self._stream, "after": after, "up_to": up_to}):
            for row in rows:
                yield Batch(*row)
            after = rows[-1][1]

    async def read(self, first: int, last: int) -> AsyncGenerator[Archived]:
        """Events, in order."""
        for piece in range(first // PIECE, last // PIECE + 1):
            values = {"stream": self._stream, "first": first, "last": last, "piece": piece}
            try:
                async with aclosing(self._clickhouse.stream(self._rows, values, binary=raw.BINARY)) as blocks:
                    async for block in blocks:
                        for row in block:
                            yield _archived(row)
            except ArchiveRefused as error:
                if piece not in self._unreadable:
                    self._unreadable.add(piece)
                    start, end = max(piece * PIECE, first), min((piece + 1) * PIECE - 1, last)
                    what = f"positions {start} to {end} cannot be read: {str(error)[:SAID_MAX]}"
                    self._findings.add(Finding(ARCHIVE, raw.TABLE, self._stream, end, what))

    def is_unreadable(self, sequence: int) -> bool:
        """Whether the archive could not be read where a position is."""
        return sequence // PIECE in self._unreadable


def _archived(row: Sequence[Any]) -> Archived:
    *stored, digest = row
    delivery = raw.delivery_of(stored)
    intact = digest == chain.digest(delivery)
    if intact and not row[_VERSION]:  # of a record that is none of ours, nothing is made of these columns
        made = zip(raw.COLUMNS, raw.row_of(delivery, digest), row, strict=True)
        intact = all(ours == theirs for name, ours, theirs in made if name in _ALONE)
    return Archived(delivery, digest, intact)
