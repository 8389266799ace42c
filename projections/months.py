"""Monthly partitions, made when the first event of a month is about to be stored, by whoever is about to store it.

A partition is built apart and then attached: that takes no lock which readers, or writers of other months, wait for.
It becomes visible with the rows of the transaction that made it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Table

from projections.projection import Connection

LOCK = 0x52695665_00000002  # "RiVe", 2: the advisory lock of partition making


async def ensure_months(connection: Connection, tables: Iterable[Table], moments: Iterable[datetime]) -> None:
    """Make sure that rows of these moments have a partition to go to, in each of the tables.

    Asked of the catalogue each time rather than remembered: one round trip a batch, and a rolled-back
    transaction or a dropped table cannot leave a false memory.
    """
    months = {(moment.year, moment.month) for moment in moments}
    wanted = {f"{table.name}_{year}_{month:02}": (table, year, month) for table in tables for year, month in months}
    missing = await _missing(connection, list(wanted))
    if not missing:
        return
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    for name in await _missing(connection, missing):
        table, year, month = wanted[name]
        first = datetime(year, month, 1, tzinfo=UTC)
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        await connection.execute(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING DEFAULTS)")
        await connection.execute(
            f"ALTER TABLE {table.name} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{first.isoformat()}') TO ('{after.isoformat()}')"
        )


async def _missing(connection: Connection, names: list[str]) -> list[str]:
    # Of the catalogue's table, in this statement's snapshot: `to_regclass` may remember from before the lock was had
    # that a partition is not there.
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_class WHERE relname = name"
        " AND relnamespace = current_schema()::regnamespace) ORDER BY name",
        (names,),
    )
    return [name for (name,) in await cursor.fetchall()]
