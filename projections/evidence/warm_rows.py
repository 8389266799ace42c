"""The warm tier's messages and changes, held against the events that their rows were made of.

In months that have left Postgres only what is there is compared: the others are the cold tier's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from domain.events import MessagePosted
from domain.ids import partition_of, slot_of
from projections.evidence.closely import Told, differences
from projections.evidence.findings import WARM, Findings
from projections.evidence.sketches import Sketch, Stretch
from projections.log_fold import ROWS, change_row, message_row
from projections.projection import Connection
from projections.tiers.months import MODELS, MOMENT, NUMBER
from projections.tiers.moved import moved_months
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery
from streams.public import to_public

_ROWS_A_FETCH: Final = 2_000

_STATEMENT: Final = {model: ROWS[model].partition(" ORDER BY ")[0] for model in MODELS}
_COLUMNS: Final = {
    model: _STATEMENT[model].removeprefix("SELECT ").partition(" FROM ")[0].split(", ") for model in MODELS
}
_SEQUENCE: Final = {model: columns.index("sequence") for model, columns in _COLUMNS.items()}
_MOMENT: Final = {model: columns.index(MOMENT[model]) for model, columns in _COLUMNS.items()}

_CHECKPOINTS: Final = "SELECT partition, sequence FROM checkpoints WHERE projection = 'messages'"


class WarmRows:
    """Both read models, as of the transaction that the connection is in.

    Args:
        ends: up to which position each stream is gone through.
        positions: of all streams together.
    """

    def __init__(
        self,
        connection: Connection,
        findings: Findings,
        ends: Mapping[str, int],
        *,
        positions: int,
        partitions: int,
    ) -> None:
        self._connection = connection
        self._findings = findings
        self._ends = dict(ends)
        self._partitions = partitions
        self._sketches = {model: Sketch(positions) for model in MODELS}
        self._moved: dict[str, frozenset[int]] = {}
        self._stayed = {(model, stream): bytearray(end // 8 + 1) for model in MODELS for stream, end in ends.items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each should have."""
        return {f"{WARM} {model}": sketch.rows for model, sketch in self._sketches.items()}

    async def look(self) -> None:
        """See what Postgres has, of what its projection has applied."""
        applied = dict(await (await self._connection.execute(_CHECKPOINTS)).fetchall())
        for partition in range(self._partitions):
            stream = subjects.stream(subjects.CONV, partition)
            self._ends[stream] = min(self._ends[stream], applied.get(partition, 0))
        for model in MODELS:
            self._moved[model] = frozenset(await moved_months(self._connection, model))
            async with self._connection.cursor(f"evidence_{model}") as cursor:
                cursor.itersize = _ROWS_A_FETCH
                await cursor.execute(_STATEMENT[model].encode())
                async for row in cursor:
                    stream, sequence = self._stream_of(row[0]), row[_SEQUENCE[model]]
                    if sequence <= self._ends[stream]:
                        self._sketches[model].find(stream, sequence, row)
                        if self._has_left(model, row):
                            self._stay(model, stream, sequence)

    def expect(self, delivery: Delivery) -> None:
        """An event: the rows of it should be there, but for those that have left."""
        for model, row in self._made_of(delivery):
            self._sketches[model].expect(delivery.stream, delivery.sequence, row)

    def different(self) -> list[tuple[str, Stretch]]:
        """Where a close look is wanted."""
        return [(model, stretch) for model, sketch in self._sketches.items() for stretch in sketch.different()]

    async def closely(self, model: str, stretch: Stretch, events: Mapping[int, Delivery | None]) -> None:
        """Name the rows that differ in a stretch.

        Args:
            events: of the stretch, by position; `None` where it is not known what is right.
        """
        last = min(stretch.last, self._ends[stretch.stream])
        cursor = await self._connection.execute(
            f"{_STATEMENT[model]} WHERE sequence BETWEEN %s AND %s".encode(), (stretch.first, last)
        )
        at, unknown = _SEQUENCE[model], {sequence for sequence, event in events.items() if event is None}
        found = [
            (row[at], row)
            for row in await cursor.fetchall()
            if self._stream_of(row[0]) == stretch.stream and row[at] not in unknown
        ]
        known = [event for event in events.values() if event is not None]
        expected = [(event.sequence, row) for event in known for name, row in self._made_of(event) if name == model]
        told = Told(WARM, model, _COLUMNS[model], NUMBER[model])
        for finding in differences(told, stretch.stream, expected, found):
            self._findings.add(finding)

    def _made_of(self, delivery: Delivery) -> list[tuple[str, tuple[Any, ...]]]:
        if delivery.sequence > self._ends.get(delivery.stream, 0):
            return []
        return [
            (model, row)
            for model, row in _rows_of(delivery)
            if not self._has_left(model, row) or self._stays(model, delivery.stream, delivery.sequence)
        ]

    def _stream_of(self, conversation_id: int) -> str:
        return subjects.stream(subjects.CONV, partition_of(slot_of(conversation_id), self._partitions))

    def _has_left(self, model: str, row: tuple[Any, ...]) -> bool:
        at: datetime = row[_MOMENT[model]].astimezone(UTC)
        return at.year * 100 + at.month in self._moved[model]

    def _stay(self, model: str, stream: str, sequence: int) -> None:
        if sequence > 0:
            self._stayed[model, stream][sequence // 8] |= 1 << sequence % 8

    def _stays(self, model: str, stream: str, sequence: int) -> bool:
        return bool(self._stayed[model, stream][sequence // 8] & 1 << sequence % 8)


def _rows_of(delivery: Delivery) -> list[tuple[str, tuple[Any, ...]]]:
    """What the projection makes of an event, by verification's own opinion."""
    try:
        event = decode(delivery)
        if (public := to_public(event)) is None:
            return []
        rows = [("changes", change_row(delivery.sequence, event, public))]
        if isinstance(event, MessagePosted):
            rows.append(("messages", message_row(delivery.sequence, event)))
    except Exception:  # noqa: BLE001  # of what cannot be decoded there are no rows
        return []
    return rows
