"""Reading the archive as what it continues: the log."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from projections.archive import raw
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from streams.ports import ArchiveUnavailable, Delivery

PIECE: Final = 1 << 20  # positions of a stream in one partition of `events`: migrations/clickhouse/0001_archive.sql

_POSITION: Final = "SELECT max(last_sequence) FROM archive_batches WHERE stream = {stream:String}"

_BOUNDS: Final = "stream = {stream:String} AND sequence > {after:UInt64} AND sequence <= {up_to:UInt64}"
# Piece by piece, so that no more than a piece is sorted at once.
_ALL: Final = f"""
    SELECT {raw.SELECT} FROM events WHERE {_BOUNDS} AND intDiv(sequence, {PIECE}) = {{piece:UInt64}}
    ORDER BY sequence"""
_OF_SUBJECT: Final = f"""
    SELECT {raw.SELECT} FROM events WHERE {_BOUNDS} AND subject = {{subject:String}}
    ORDER BY sequence"""

_LAST: Final = f"""
    SELECT {raw.SELECT} FROM events WHERE {_BOUNDS} AND subject = {{subject:String}}
    ORDER BY version DESC, sequence DESC LIMIT 1"""


class ClickHouseArchive:
    """See `streams.ports.Archive`. Only what is archived whole is given."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def position(self, stream: str) -> int:
        """See `streams.ports.Archive.position`."""
        try:
            rows = await self._clickhouse.query(_POSITION, {"stream": stream})
        except ArchiveRefused as error:
            raise ArchiveUnavailable(str(error)) from error
        return int(rows[0][0])

    async def last(self, stream: str, subject: str, *, up_to_sequence: int) -> Delivery | None:
        """See `streams.ports.Archive.last`."""
        parameters = {"stream": stream, "subject": subject, "after": 0, "up_to": up_to_sequence}
        try:
            rows = await self._clickhouse.query(_LAST, parameters, binary=raw.BINARY)
        except ArchiveRefused as error:
            raise ArchiveUnavailable(str(error)) from error
        return raw.delivery_of(rows[0]) if rows else None

    async def read(
        self, stream: str, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int
    ) -> AsyncIterator[Delivery]:
        """See `streams.ports.Archive.read`."""
        up_to = min(up_to_sequence, await self.position(stream))
        bounds = {"stream": stream, "after": after_sequence, "up_to": up_to}
        if after_sequence >= up_to:
            return
        if subject is None:
            statements = [
                (_ALL, {**bounds, "piece": piece}) for piece in range((after_sequence + 1) // PIECE, up_to // PIECE + 1)
            ]
        else:
            statements = [(_OF_SUBJECT, {**bounds, "subject": subject})]
        try:
            for sql, parameters in statements:
                async with aclosing(self._clickhouse.stream(sql, parameters, binary=raw.BINARY)) as blocks:
                    async for block in blocks:
                        for row in block:
                            yield raw.delivery_of(row)
        except ArchiveRefused as error:
            raise ArchiveUnavailable(str(error)) from error
