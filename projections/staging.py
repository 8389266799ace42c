"""Rows to Postgres in bulk, by binary COPY: merged through a temporary table, or straight into the table."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql
from psycopg.errors import UniqueViolation
from sqlalchemy import Table
from sqlalchemy.types import BigInteger, DateTime, Integer

from projections.projection import Connection

_TYPES: dict[type[Any], str] = {BigInteger: "int8", Integer: "int4", DateTime: "timestamptz"}


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
        """Copy rows, in the table's column order, into the staging table, after those already there."""
        await connection.execute(self._create)
        await self._copy(connection, self._copy_staged, rows)

    async def add(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to the table itself, leaving out those whose key is there.

        The checkpoint makes repeats rare, so they are copied straight in, which halves Postgres's work, and only
        when one is refused are they sorted out through the staging table.
        """
        try:
            async with connection.transaction():
                await self._copy(connection, self._copy_direct, rows)
        except UniqueViolation:
            await self.fill(connection, rows)
            await connection.execute(self._add_missing)

    async def _copy(self, connection: Connection, statement: sql.SQL, rows: Iterable[Sequence[Any]]) -> None:
        async with connection.cursor().copy(statement) as copy:
            copy.set_types(self._types)
            for row in rows:
                await copy.write_row(row)
