"""The typed tables of the archive, held against the events that their rows were made of."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from projections.archive.batches import rows_of
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.typed import PLACE, TABLES, TypedTable
from projections.evidence.closely import Told, differences
from projections.evidence.findings import ARCHIVE, Finding, Findings
from projections.evidence.parts import SAID_MAX, UNCHECKED
from projections.evidence.sketches import Sketch, Stretch
from streams.ports import Delivery

_KEY: Final = {"messages": "seq", "conversations": "version", "memberships": "version"}  # the number in a conversation


class TypedRows:
    """All typed tables.

    Args:
        broken: tables with a part whose checksum does not match.
        ends: up to which position each stream is archived.
        positions: of all streams together.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        findings: Findings,
        *,
        broken: frozenset[str],
        ends: Mapping[str, int],
        positions: int,
    ) -> None:
        self._clickhouse = clickhouse
        self._findings = findings
        self._ends = ends
        self._unchecked = {table.name: UNCHECKED if table.name in broken else "" for table in TABLES}
        self._sketches = {table.name: Sketch(positions) for table in TABLES}
        self._tables = {table.name: table for table in TABLES}

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each table should have."""
        return {f"{ARCHIVE} {name}": sketch.rows for name, sketch in self._sketches.items()}

    async def look(self) -> None:
        """See what all tables have.

        Raises:
            ArchiveUnavailable: ClickHouse does not answer.
        """
        for table in TABLES:
            sketch = self._sketches[table.name]
            statement = f"SELECT {', '.join((*PLACE, *table.columns))} FROM {table.name}"
            statement += self._unchecked[table.name]
            try:
                async with aclosing(self._clickhouse.stream(statement)) as blocks:
                    async for block in blocks:
                        for stream, sequence, *row in block:
                            if stream not in self._ends:
                                self._findings.add(
                                    Finding(ARCHIVE, table.name, stream, sequence, "there is no such stream")
                                )
                            elif sequence <= self._ends[stream]:  # the others are of a batch that is being stored
                                sketch.find(stream, sequence, row)
            except ArchiveRefused as error:
                what = f"it cannot be read, so none of it was compared: {str(error)[:SAID_MAX]}"
                self._findings.add(Finding(ARCHIVE, table.name, "", 0, what))
                del self._sketches[table.name]

    def expect(self, delivery: Delivery) -> None:
        """An archived event: the rows of it should be there."""
        for name, row in _made_of(delivery):
            if name in self._sketches:
                self._sketches[name].expect(delivery.stream, delivery.sequence, row)

    def different(self) -> list[tuple[TypedTable, Stretch]]:
        """Where a close look is wanted."""
        return [
            (self._tables[name], stretch) for name, sketch in self._sketches.items() for stretch in sketch.different()
        ]

    async def closely(self, table: TypedTable, stretch: Stretch, events: Mapping[int, Delivery | None]) -> None:
        """Name the rows that differ in a stretch.

        Args:
            events: of the stretch, by position; `None` where it is not known what is right.
        """
        columns = (*PLACE, *table.columns)
        statement = (
            f"SELECT {', '.join(columns)} FROM {table.name} WHERE stream = {{stream:String}} "
            "AND sequence >= {first:UInt64} AND sequence <= {last:UInt64}" + self._unchecked[table.name]
        )
        last = min(stretch.last, self._ends[stretch.stream])
        values: dict[str, Any] = {"stream": stretch.stream, "first": stretch.first, "last": last}
        unknown = {sequence for sequence, event in events.items() if event is None}
        rows = await self._clickhouse.query(statement, values)
        found = [(row[1], row[2:]) for row in rows if row[1] not in unknown]
        expected = [
            (event.sequence, row)
            for event in events.values()
            if event is not None and event.sequence <= last
            for name, row in _made_of(event)
            if name == table.name
        ]
        told = Told(ARCHIVE, table.name, table.columns, _KEY.get(table.name))
        for finding in differences(told, stretch.stream, expected, found):
            self._findings.add(finding)


def _made_of(delivery: Delivery) -> list[tuple[str, tuple[Any, ...]]]:
    try:
        return [(name, row[: -len(PLACE)]) for name, row in rows_of(delivery)]
    except Exception:  # noqa: BLE001  # of what cannot be decoded there are no rows
        return []
