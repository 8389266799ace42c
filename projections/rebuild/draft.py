"""The draft: fresh read models in a Postgres schema of their own, until they take the place of those in force.

It has the tables of the projections that are rebuilt, and checkpoints of its own; with the schema in the search path,
the projections' own code fills it. Histories are loaded without their indexes, which are made when all is there: that
is a third of the work. Whoever finds a draft that a rebuild has left behind drops it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Final

from psycopg_pool import AsyncConnectionPool
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from projections import tables
from projections.catalogue import tables_of
from projections.projection import Connection

PREFIX: Final = "draft_"
INDEXING: Final = 2  # indexes that are made at once
# Of each that makes an index: a sort that fits in memory takes half the time.
_INDEX_MEMORY: Final = "SET maintenance_work_mem = '256MB'"

# Rows are only ever added to these, so that nothing is looked up while they are loaded.
HISTORIES: Final = (tables.messages, tables.changes)

_LEFT: Final = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^draft_[0-9a-f]{8}$'"
_MONTHS: Final = """
    SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = %s::regclass ORDER BY child.relname"""


class Draft:
    """One draft. Made by `create`.

    Attributes:
        schema: its name.
        names: of the projections whose tables it has.
    """

    def __init__(self, schema: str, names: Sequence[str]) -> None:
        self.schema = schema
        self.names = names

    @property
    def tables(self) -> list[Table]:
        """Those of the projections."""
        return [table for name in self.names for table in tables_of(name)]

    def pool(self, postgres_url: str, *, size: int = 2) -> AsyncConnectionPool:
        """Connections that see the draft, and nothing else. To be opened and closed by the caller.

        What they run ends soon after their process does, so that who comes next need not wait for it.
        """
        options = f"-c search_path={self.schema} -c client_connection_check_interval=1000"
        return AsyncConnectionPool(
            postgres_url, min_size=1, max_size=size, open=False, kwargs={"autocommit": True, "options": options}
        )

    async def finish(self, pool: AsyncConnectionPool) -> None:
        """Make the indexes that were left out, and let Postgres look at what is in the tables."""
        limit = asyncio.Semaphore(INDEXING)

        async def run(*statements: str) -> None:
            async with limit, pool.connection() as connection:
                await connection.execute(_INDEX_MEMORY)
                for statement in statements:
                    await connection.execute(statement.encode())

        histories = [table for table in self.tables if table in HISTORIES]
        async with pool.connection() as connection:
            months = [(table, name) for table in histories for name in await months_of(connection, table.name)]
        async with asyncio.TaskGroup() as group:
            for table, name in months:
                for statement in _indexes(table, name):
                    group.create_task(run(statement))
        async with asyncio.TaskGroup() as group:
            for table in self.tables:
                # The months' own are taken for parts of it, so this is done at once.
                of_history = [_primary_key(table, table.name)] if table in HISTORIES else []
                indexes = [_sql(CreateIndex(index)) for index in table.indexes]
                group.create_task(run(*of_history, *indexes, f"ANALYZE {table.name}"))


async def create(connection: Connection, names: Sequence[str]) -> Draft:
    """A draft with nothing in it."""
    draft = Draft(PREFIX + token_hex(4), names)
    async with connection.transaction():
        await connection.execute(f"CREATE SCHEMA {draft.schema}".encode())
        await connection.execute(f"SET LOCAL search_path = {draft.schema}".encode())
        for table in (tables.checkpoints, *draft.tables):
            await connection.execute(_sql(CreateTable(table)).encode())
            if table in HISTORIES:
                await connection.execute(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey".encode())
    return draft


async def drop_left(connection: Connection) -> None:
    """Drop every draft there is: for who knows to be alone."""
    for (schema,) in await (await connection.execute(_LEFT)).fetchall():
        await drop(connection, schema)


async def drop(connection: Connection, schema: str) -> None:
    """Drop a draft, if it is there."""
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


async def months_of(connection: Connection, table: str) -> list[str]:
    """The partitions of a table, by name."""
    return [name for (name,) in await (await connection.execute(_MONTHS, (table,))).fetchall()]


def _sql(statement: CreateTable | CreateIndex) -> str:
    return str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


def _primary_key(table: Table, name: str) -> str:
    return f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(table.primary_key.columns.keys())})"


def _indexes(table: Table, name: str) -> Iterator[str]:
    yield _primary_key(table, name)
    for index in table.indexes:
        yield f"CREATE INDEX ON {name} ({', '.join(index.columns.keys())})"
