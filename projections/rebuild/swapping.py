"""A draft put in the place of what is in force: one transaction, in which nobody applies and nobody reads.

The live workers wait for the checkpoints meanwhile, and find them where they left them: they go on, and notice nothing.
Whoever reads waits for the tables, some milliseconds. If somebody reads for long, nobody is made to wait behind the
swap: it lets go of everything, and tries again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import psycopg

from projections.catalogue import projection_of
from projections.projection import Connection
from projections.rebuild.building import Building
from projections.rebuild.draft import HISTORIES, Draft, months_of
from projections.rebuild.loading import burying
from projections.rebuild.positions import Checkpoint, Place, catch_up, checkpoints
from streams.ports import Log

WORKERS_MS: Final = 5_000  # for the transactions of workers to end; they take milliseconds
READERS_MS: Final = 100  # for readers to end; others wait behind
TRIES: Final = 100
TRY_AGAIN_S: Final = 0.5

Ends: TypeAlias = Callable[[], Awaitable[Mapping[Place, int]]]

_CHECKPOINT: Final = """
    INSERT INTO checkpoints (projection, partition, sequence, version) VALUES (%s, %s, %s, %s)
    ON CONFLICT (projection, partition) DO UPDATE SET sequence = excluded.sequence, version = excluded.version"""


class InUse(Exception):
    """Somebody reads or writes the read models for too long. Nothing has changed. One line."""


async def swap(log: Log, building: Building, ends: Ends) -> None:
    """Put a draft in force.

    Args:
        ends: where the log ends now. A checkpoint past that is of another log, and is not what is gone by.

    Raises:
        InUse, Interrupted, LogUnavailable, psycopg.Error: what was in force still is.
    """
    live = building.live
    for tries in range(1, TRIES + 1):
        await _catch_up(log, building, ends)  # most of it, while everybody works
        try:
            async with live.transaction():
                await live.execute(f"SET LOCAL lock_timeout = {WORKERS_MS}".encode())
                await live.execute("LOCK TABLE checkpoints IN SHARE ROW EXCLUSIVE MODE")
                await _catch_up(log, building, ends)
                await building.deaths.bury(log)
                async with building.pool.connection() as connection:
                    reached = await checkpoints(connection)
                await _replace(live, building.draft)
                for place, (sequence, _) in reached.items():
                    await live.execute(_CHECKPOINT, (*place, sequence, projection_of(place.projection).version))
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if tries == TRIES:
                raise InUse(f"the read models are in use: {' '.join(str(error).split())}") from error
        await asyncio.sleep(TRY_AGAIN_S)


async def _catch_up(log: Log, building: Building, ends: Ends) -> None:
    there = await checkpoints(building.live)
    nothing = Checkpoint(0, 0)
    targets = {place: min(there.get(place, nothing).sequence, end) for place, end in (await ends()).items()}
    await catch_up(log, building.pool, targets, bury=burying(building.deaths.tell))


async def _replace(live: Connection, draft: Draft) -> None:
    replaced = draft.tables
    # Snapshots begin by locking the histories (`projections.reading`), so that none was taken before this and reads a
    # table after it.
    only = [f"ONLY {table.name}" for table in HISTORIES if table not in replaced and await _is(live, table.name)]
    there = [table.name for table in replaced if await _is(live, table.name)]
    schema = await _schema(live)
    await live.execute(f"SET LOCAL lock_timeout = {READERS_MS}".encode())
    if locked := [*only, *there]:
        await live.execute(f"LOCK TABLE {', '.join(locked)} IN ACCESS EXCLUSIVE MODE".encode())
    if there:
        await live.execute(f"DROP TABLE {', '.join(there)}".encode())
    for table in replaced:
        ours = f"{draft.schema}.{table.name}"
        months = await months_of(live, ours) if table in HISTORIES else []
        for name in (ours, *(f"{draft.schema}.{month}" for month in months)):
            await live.execute(f"ALTER TABLE {name} SET SCHEMA {schema}".encode())
    await live.execute(f"DROP SCHEMA {draft.schema} CASCADE".encode())


async def _is(live: Connection, table: str) -> bool:
    row = await (await live.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))).fetchone()
    return row is not None and bool(row[0])


async def _schema(live: Connection) -> str:
    row = await (await live.execute("SELECT quote_ident(current_schema())")).fetchone()
    assert row is not None
    return str(row[0])
