"""Rows to Postgres in bulk, by binary COPY: merged through a temporary table, or straight into the table.

Few rows go as arrays: COPY costs round trips of its own, the parameters of a statement over `unnest` cost none.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql
from sqlalchemy import Table
from sqlalchemy.types import BigInteger, Boolean, DateTime, Integer

from projections.projection import Connection

_TYPES: dict[type[Any], str] = {BigInteger: "int8", Integer: "int4", DateTime: "timestamptz", Boolean: "bool"}


class Staging:
    """The staging table of one read model's table: the same columns, no constraint, empty after every transaction.

    It lives in the session's temporary schema, so each connection has its own and none is left behind.
    """

    def __init__(self, table: Table) -> None:
        self.name = f"staged_{table.name}"
        self.columns = ", ".join(column.name for column in table.columns)
        self._types = [_TYPES.get(type(column.type), "text") for column in table.columns]
        self._create = sql.SQL(
            f"CREATE TEMP TABLE IF NOT EXISTS {self.name} ON COMMIT DELETE ROWS "
            f"AS SELECT {self.columns} FROM {table.name} WITH NO DATA"
        )
        self._copy_staged = sql.SQL(f"COPY {self.name} ({self.columns}) FROM STDIN (FORMAT BINARY)")
        self._copy_direct = sql.SQL(f"COPY {table.name} ({self.columns}) FROM STDIN (FORMAT BINARY)")
        self._add_missing = (
            f"INSERT INTO {table.name} ({self.columns}) SELECT {self.columns} FROM {self.name} ON CONFLICT DO NOTHING"
        )

    async def fill(self, connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Copy rows, in the table's column order, into the staging table."""
        await connection.execute(self._create)
        await self._copy(connection, self._copy_staged, rows)

    async def add(self, connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Copy rows straight into the table: half of Postgres's work. Rows that are made as they are copied
        are made while Postgres works on those before.

        Raises:
            psycopg.errors.UniqueViolation: the key of a row is there already.
        """
        await self._copy(connection, self._copy_direct, rows)

    async def add_missing(self, connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to the table, leaving out those whose key is there."""
        await self.fill(connection, rows)
        await connection.execute(self._add_missing)

    async def _copy(self, connection: Connection, statement: sql.SQL, rows: Iterable[Sequence[Any]]) -> None:
        async with connection.cursor().copy(statement) as copy:
            copy.set_types(self._types)
            for row in rows:
                await copy.write_row(row)


def arrays(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Rows, at least one, as an array a column: what a statement over `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]
