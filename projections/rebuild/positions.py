"""Where the read models in force stand, and a draft brought there."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple, TypeAlias

from psycopg_pool import AsyncConnectionPool

from projections.applying import Applier, Bury, OnApplied
from projections.catalogue import CATALOGUE, projections_of
from projections.projection import Connection
from projections.rebuild.source import batches
from projections.tiers.months import MODELS
from streams import subjects
from streams.ports import Log


class Place(NamedTuple):
    """A projection of one partition."""

    projection: str
    partition: int


class Checkpoint(NamedTuple):
    """Up to where it has applied, and by which version of its code."""

    sequence: int
    version: int


Checkpoints: TypeAlias = Mapping[Place, Checkpoint]


async def checkpoints(connection: Connection) -> Checkpoints:
    """Those in a schema."""
    cursor = await connection.execute("SELECT projection, partition, sequence, version FROM checkpoints")
    return {Place(name, partition): Checkpoint(*rest) for name, partition, *rest in await cursor.fetchall()}


@asynccontextmanager
async def as_of_now(connection: Connection) -> AsyncIterator[Checkpoints]:
    """What is in force as it is at one moment, for as long as the context lasts, and its checkpoints then."""
    histories = await _histories(connection)
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if histories:
            # The locks come before the moment that is seen: of a month that is replaced after it nothing would be.
            await connection.execute(f"LOCK TABLE ONLY {', ONLY '.join(histories)} IN ACCESS SHARE MODE".encode())
        yield await checkpoints(connection)


async def catch_up(
    log: Log,
    pool: AsyncConnectionPool,
    targets: Mapping[Place, int],
    *,
    bury: Bury,
    on_applied: OnApplied | None = None,
) -> None:
    """Bring a draft to a sequence each; where it is further, it stays.

    Args:
        pool: of the draft. Nobody else writes into it.

    Raises:
        Interrupted: Postgres went away. LogUnavailable: log or archive cannot be read.
    """
    for family, partition in sorted({(CATALOGUE[name].family, partition) for name, partition in targets}):
        of_it = {
            name: up_to
            for (name, number), up_to in targets.items()
            if number == partition and CATALOGUE[name].family == family
        }
        # All read together what all are to have; a projection that is ahead of the others goes on alone.
        together = [(list(of_it), min(of_it.values()))]
        for names, up_to in (*together, *(([name], up_to) for name, up_to in of_it.items())):
            applier = Applier(pool, projections_of(family, names), number=partition, bury=bury, on_applied=on_applied)
            await applier.read_checkpoints()
            stream = subjects.stream(family, partition)
            reading = batches(log, stream, after_sequence=applier.applied_sequence, up_to_sequence=up_to)
            async with aclosing(reading):
                async for batch in reading:
                    await applier.apply(batch)


async def _histories(connection: Connection) -> list[str]:
    """Those that are there: a table may be missing, which is why it is rebuilt."""
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", (list(MODELS),)
    )
    return [name for (name,) in await cursor.fetchall()]
