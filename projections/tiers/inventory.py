"""What lies where: each tier's rows and sizes, and the months that have moved last."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from projections.projection import Connection
from projections.tiers.cold import ColdRows
from projections.tiers.months import MODELS, warm_months
from streams.public import rfc3339

MILLION: Final = 1_000_000
GB: Final = 1_000_000_000
MOVES_SHOWN: Final = 10

_MOVES: Final = """
    SELECT model, month_start, moved_at, moved_rows, kept_rows, conversations, freed_bytes FROM tier_moves
    ORDER BY moved_at DESC LIMIT %s"""

# Of parts that are read; those that were merged into others wait to be taken away.
_COLD: Final = """
    SELECT table, partition, sum(rows), sum(bytes_on_disk) FROM system.parts
    WHERE active AND database = currentDatabase() AND table IN ('messages', 'events')
    GROUP BY table, partition ORDER BY table, partition"""


class Place(NamedTuple):
    """Rows of a read model in one month, or of a part of a table of the archive. `rows` are about as many."""

    tier: str
    table: str
    part: str
    rows: int
    size_bytes: int


class LastMove(NamedTuple):
    """A row of `tier_moves`."""

    model: str
    month: str
    moved_at: datetime
    rows: int
    kept: int
    conversations: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What lies where.

    Attributes:
        moves: the newest first.
        cold_error: why the cold tier is not in it, where it is not.
    """

    places: Sequence[Place]
    moves: Sequence[LastMove]
    cold_error: str | None = None

    def bytes_a_million(self, tier: str) -> int | None:
        """The size of a million messages in a tier, with the events that they are; `None` without any message."""
        messages = sum(place.rows for place in self.places if place.tier == tier and place.table == "messages")
        size_bytes = sum(place.size_bytes for place in self.places if place.tier == tier)
        return size_bytes * MILLION // messages if messages else None

    def as_dict(self, price_gb_month: float) -> dict[str, Any]:
        """The JSON form."""
        return {
            "places": [place._asdict() for place in self.places],
            "moves": [{**move._asdict(), "moved_at": rfc3339(move.moved_at)} for move in self.moves],
            "per_million_messages": {
                tier: None if size is None else {"bytes": size, "cost_a_month": cost(size, price_gb_month)}
                for tier in ("warm", "cold")
                for size in (self.bytes_a_million(tier),)
            },
            "cold_error": self.cold_error,
        }


def cost(size_bytes: int, price_gb_month: float) -> float:
    """What a size costs a month."""
    return round(size_bytes / GB * price_gb_month, 6)


async def look(connection: Connection, cold: ColdRows | None) -> Inventory:
    """What lies where now.

    Raises:
        LogUnavailable: ClickHouse does not answer. psycopg.Error: Postgres does not.
    """
    places = []
    for model in MODELS:
        for month in await warm_months(connection, model):
            rows = month.rows or await _count(connection, month.partition)
            places.append(Place("warm", model, month.name, rows, month.size_bytes))
    if cold is not None:
        for table, partition, rows, size_bytes in await cold.query(_COLD):
            # Messages lie by month, events by stream and piece of it.
            part = f"{partition[:4]}-{partition[4:]}" if table == "messages" else partition
            places.append(Place("cold", table, part, int(rows), int(size_bytes)))
    cursor = await connection.execute(_MOVES, (MOVES_SHOWN,))
    moves = [LastMove(model, f"{start:%Y-%m}", at, *numbers) for model, start, at, *numbers in await cursor.fetchall()]
    return Inventory(places, moves)


async def _count(connection: Connection, table: str) -> int:
    row = await (await connection.execute(f"SELECT count(*) FROM {table}".encode())).fetchone()
    assert row is not None
    return int(row[0])
