"""The months that the warm tier is partitioned by: which there are, and which are old enough to leave."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

from projections.projection import Connection

MODELS: Final = ("messages", "changes")  # the read models that are partitioned by month

NUMBER: Final = {"messages": "seq", "changes": "version"}  # what their rows are numbered by, without a hole

MOMENT: Final = {"messages": "created_at", "changes": "occurred_at"}

# Kinds of conversations of which rows leave a month, each with the first moment of which all rows stay warm.
Leaving: TypeAlias = Mapping[str, datetime]

_PARTITIONS: Final = """
    SELECT child.relname, pg_total_relation_size(child.oid), greatest(child.reltuples, 0)::int8
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = %s::regclass ORDER BY child.relname"""


class Month(NamedTuple):
    """A month of one read model, as Postgres has it.

    Attributes:
        partition: its table.
        start, end: its first moment, and that of the next month.
        size_bytes: with its indexes. rows: about as many, as of the last time Postgres looked.
    """

    model: str
    partition: str
    start: datetime
    end: datetime
    size_bytes: int
    rows: int

    @property
    def name(self) -> str:
        """As people write it: `2026-03`."""
        return f"{self.start:%Y-%m}"


async def warm_months(connection: Connection, model: str) -> list[Month]:
    """The months of a read model, the oldest first."""
    cursor = await connection.execute(_PARTITIONS, (model,))
    months = []
    for partition, size_bytes, rows in await cursor.fetchall():
        year, month = map(int, partition.removeprefix(f"{model}_").split("_"))
        start, end = datetime(year, month, 1, tzinfo=UTC), datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        months.append(Month(model, partition, start, end, size_bytes, rows))
    return months


def leaving_values(leaving: Leaving) -> dict[str, Any]:
    """As parameters of a statement."""
    return {"kinds": list(leaving), "horizons": list(leaving.values())}


def month_before(moment: datetime, months: int) -> datetime:
    """The first moment of the month that is so many before that of another moment."""
    number = moment.year * 12 + moment.month - 1 - months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
