"""Snapshots of aggregates in Postgres: disposable shortcuts, so every failure here only costs time."""

import asyncio

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from commands.ports import Snapshot, Trimmed
from commands.repository import SCHEMAS

PATIENCE_S = 1.0  # longer than this, replaying the log is the better way

log_ = structlog.get_logger(__name__)

_LOAD = "SELECT version, sequence, schema, state FROM snapshots WHERE family = %s AND aggregate_id = %s"
# One statement, so that the mark and the snapshot are of one moment.
_OF_TRIMMED = """
    SELECT version, snapshots.sequence, schema, state FROM covered
    LEFT JOIN snapshots ON family = %s AND aggregate_id = %s
    WHERE stream = %s AND schemas = %s AND covered.sequence >= %s"""
# Another schema replaces whatever is there: after an upgrade the old ones are of no use to anybody.
SAVE = """
    INSERT INTO snapshots (family, aggregate_id, version, sequence, schema, state) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (family, aggregate_id) DO UPDATE
    SET version = excluded.version, sequence = excluded.sequence, schema = excluded.schema, state = excluded.state
    WHERE snapshots.version < excluded.version OR snapshots.schema <> excluded.schema"""


class PostgresSnapshots:
    """A `commands.ports.SnapshotStore` on a pool that its maker opens and closes."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def load(self, family: str, aggregate_id: str) -> Snapshot | None:
        """The newest snapshot; `None` if there is none, or Postgres gives none within a second."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._pool.connection(timeout=PATIENCE_S) as connection:
                cursor = await connection.execute(_LOAD, (family, aggregate_id), binary=True)
                row = await cursor.fetchone()
        except (psycopg.Error, OSError, TimeoutError) as error:
            log_.warning("snapshot not loaded; the log is replayed", aggregate_id=aggregate_id, error=repr(error))
            return None
        return Snapshot(family, aggregate_id, *row) if row else None

    async def of_trimmed(self, stream: str, trimmed: int, family: str, aggregate_id: str) -> Trimmed:
        """See `commands.ports.SnapshotStore.of_trimmed`."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._pool.connection(timeout=PATIENCE_S) as connection:
                cursor = await connection.execute(
                    _OF_TRIMMED, (family, aggregate_id, stream, SCHEMAS, trimmed), binary=True
                )
                row = await cursor.fetchone()
        except (psycopg.Error, OSError, TimeoutError) as error:
            log_.warning("snapshot not loaded; the archive is read", aggregate_id=aggregate_id, error=repr(error))
            row = None
        if row is None:
            return Trimmed(is_certain=False)
        return Trimmed(True, None if row[0] is None else Snapshot(family, aggregate_id, *row))

    async def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless a newer one is kept already. A failure is logged, not raised."""
        try:
            async with self._pool.connection(timeout=PATIENCE_S) as connection:
                await connection.execute(SAVE, values_of(snapshot))
        except (psycopg.Error, OSError) as error:
            log_.warning("snapshot not saved", aggregate_id=snapshot.aggregate_id, error=repr(error))


def values_of(snapshot: Snapshot) -> tuple[str, str, int, int, int, bytes]:
    """What `SAVE` takes."""
    place = (snapshot.version, snapshot.sequence, snapshot.schema)
    return (snapshot.family, snapshot.aggregate_id, *place, snapshot.state)
