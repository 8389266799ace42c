"""The months that the warm tier is partitioned by: which there are, and which are old enough to leave."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from projections.projection import Connection
from projections.tiers.policy import Leaving

MODELS: Final = ("messages", "changes")  # the read models that are partitioned by month

NUMBER: Final = {"messages": "seq", "changes": "version"}  # what their rows are numbered by, without a hole

MOMENT: Final = {"messages": "created_at", "changes": "occurred_at"}

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
