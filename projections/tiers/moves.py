"""Moving a month out of the warm tier: one transaction, in which what is dropped is what was compared.

The archiver has brought every event to the cold tier long before. A move compares count and checksum of each
conversation in both, and puts a new partition, of the rows that are to stay, in the place of the month's. Killed
at any point, it has done all of that or nothing; begun again, it begins anew, and remembers nothing.

What stays: rows of kinds of conversations that are kept longer, and of each conversation the **last** row before the
months that stay. So the newest message and event of a conversation are always warm, however long it has been silent:
an inbox shows the one, and the other tells how far it has come. And from any event of a warm month one comes, back
through warm events only, to one that is older, and knows that nothing in between is missing.

An event of a month that has left goes into what stayed of it. There, rows are few, and leave by themselves
(`projections.tiers.leftovers`).
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from projections import metrics
from projections.projection import Connection
from projections.tables import metadata
from projections.tiers import sums
from projections.tiers.cold import ColdRows
from projections.tiers.months import MOMENT, NUMBER, Month, leaving_values
from projections.tiers.policy import Leaving

# Whoever reads waits behind a swap that waits: so long at the most, and then readers go first again. Most reads take
# milliseconds; a long one, as a verification's, makes the move try again, and give up until the next round.
PATIENCE_MS: Final = 5_000  # for who writes the month, or vacuums it; nobody waits behind this who only reads
LOCK_MS: Final = 100
TRIES: Final = 50
TRY_AGAIN_S: Final = 0.5

NAMED_MAX: Final = 20  # conversations that are named where a month does not agree

# Kinds that leave, each with the first moment that stays warm: `Leaving` as a table.
LEAVING: Final = "unnest(%(kinds)s::text[], %(horizons)s::timestamptz[]) AS leaving (kind, horizon)"

_LAST: Final = f"""
    CREATE TEMP TABLE last_rows ON COMMIT DROP AS
    SELECT month.conversation_id, month.number FROM (
            SELECT conversation_id, max({{number}}) AS number FROM {{partition}} GROUP BY conversation_id) month
        JOIN conversations USING (conversation_id) JOIN {LEAVING} ON leaving.kind = conversations.kind
    WHERE NOT EXISTS (SELECT FROM {{model}} later WHERE later.conversation_id = month.conversation_id
        AND later.{{number}} > month.number AND later.{{moment}} < leaving.horizon)"""

_KEEP: Final = """
    INSERT INTO {kept} SELECT month.* FROM {partition} month
        LEFT JOIN last_rows ON last_rows.conversation_id = month.conversation_id AND last_rows.number = month.{number}
        LEFT JOIN conversations ON conversations.conversation_id = month.conversation_id
    WHERE last_rows.number IS NOT NULL OR (conversations.kind = ANY(%(kinds)s)) IS NOT TRUE"""

_RECORD: Final = """
    INSERT INTO tier_moves
        (model, month_start, month_end, moved_at, moved_rows, kept_rows, conversations, freed_bytes)
    VALUES (%s, %s, %s, clock_timestamp(), %s, %s, %s, %s)"""


class Moved(NamedTuple):
    """What a move did: rows that left and that stayed, and the disk space that is free again."""

    month: Month
    rows: int
    kept: int
    conversations: int
    freed_bytes: int


class Differs(Exception):
    """Warm and cold tier do not agree on a month: it stays as it is. One line."""

    def __init__(self, month: Month, conversation_ids: Sequence[int]) -> None:
        named = ", ".join(map(str, conversation_ids[:NAMED_MAX]))
        more = f" and {len(conversation_ids) - NAMED_MAX} more" if len(conversation_ids) > NAMED_MAX else ""
        super().__init__(
            f"{month.model} of {month.name} are not the same in Postgres and ClickHouse, in conversations {named}{more}"
        )
        self.conversation_ids = conversation_ids


class Busy(Exception):
    """Somebody read or wrote the month for too long. Nothing has changed; the next round tries again. One line."""

    def __init__(self, month: Month, error: psycopg.Error) -> None:
        super().__init__(f"{month.model} of {month.name} are in use: {' '.join(str(error).split())}")


async def move(connection: Connection, cold: ColdRows, month: Month, *, leaving: Leaving) -> Moved | None:
    """Move a month's rows of conversations of some kinds out of the warm tier.

    Args:
        leaving: those kinds; all of the month is before their horizons.

    Returns:
        `None` when there are none that may leave.

    Raises:
        Differs: the tiers do not agree. Busy: not now. LogUnavailable: ClickHouse does not answer.
        psycopg.OperationalError: Postgres went away. Whatever is raised, nothing has changed.
    """
    rows = await sums.cold_sums(cold, month.model, month.start, month.end)
    others = await sums.cold_others(cold, month.start, month.end) if month.model == "changes" else {}
    moved = None
    try:
        async with connection.transaction():
            moved = await _move(connection, month, (rows, others), leaving)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Busy(month, error) from error
    return moved


async def _move(
    connection: Connection,
    month: Month,
    wanted: tuple[sums.Sums, sums.Sums],
    leaving: Leaving,
) -> Moved | None:
    names = {
        "model": month.model,
        "partition": month.partition,
        "kept": f"{month.partition}_kept",
        "number": NUMBER[month.model],
        "moment": MOMENT[month.model],
    }

    async def run(statement: str, values: dict[str, Any] | None = None) -> psycopg.AsyncCursor[Any]:
        return await connection.execute(statement.format(**names).encode(), values)

    await connection.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}".encode())
    # An event that comes this late waits until the month has been compared and replaced; reading goes on.
    await run("LOCK TABLE ONLY {partition} IN SHARE MODE")
    found = await sums.warm_sums(connection, month.model, month.partition)
    if differing := sums.different(found, wanted[0]):
        raise Differs(month, differing)
    if month.model == "changes" and (
        differing := sums.different(await sums.warm_others(connection, month.partition), wanted[1])
    ):
        raise Differs(month, differing)
    await run(_LAST, leaving_values(leaving))
    await run("CREATE TABLE {kept} (LIKE {model} INCLUDING DEFAULTS)")
    kept = (await run(_KEEP, leaving_values(leaving))).rowcount
    rows = sum(one.rows for one in found.values())
    if kept == rows:
        raise psycopg.Rollback
    freed_bytes = month.size_bytes
    if kept:
        for statement in _like_a_month(month, names["kept"]):
            await run(statement)
        freed_bytes -= await _size_bytes(connection, names["kept"])
    await lock(connection, month)
    await run("ALTER TABLE {model} DETACH PARTITION {partition}")
    await run("DROP TABLE {partition}")
    if kept:
        await run("ALTER TABLE {kept} RENAME TO {partition}")
        await run(f"ALTER TABLE {{model}} ATTACH PARTITION {{partition}} FOR VALUES FROM {_bounds(month)}")
        await run("ALTER TABLE {partition} DROP CONSTRAINT month")
    else:
        await run("DROP TABLE {kept}")
    moved = Moved(month, rows - kept, kept, len(found), freed_bytes)
    await record(connection, moved)
    return moved


async def record(connection: Connection, moved: Moved) -> None:
    """Keep what was done, in `tier_moves`."""
    metrics.MOVED.labels(moved.month.model).inc(moved.rows)
    month = moved.month
    await connection.execute(
        _RECORD,
        (month.model, month.start, month.end, moved.rows, moved.kept, moved.conversations, moved.freed_bytes),
    )


def _like_a_month(month: Month, name: str) -> Iterator[str]:
    """What makes a table one that can be attached in no time: its indexes are there, and its rows need no look."""
    table = metadata.tables[month.model]
    yield f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(table.primary_key.columns.keys())})"
    for index in table.indexes:
        yield f"CREATE INDEX ON {name} ({', '.join(index.columns.keys())})"
    moment, (start, end) = MOMENT[month.model], _ends(month)
    yield f"ALTER TABLE {name} ADD CONSTRAINT month CHECK ({moment} >= {start} AND {moment} < {end})"
    yield f"ANALYZE {name}"


async def lock(connection: Connection, month: Month) -> None:
    """Have a read model to oneself, for the moment that a swap takes.

    Raises:
        psycopg.errors.LockNotAvailable: somebody reads for too long.
    """
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}".encode())
    for tries in range(1, TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(
                    f"LOCK TABLE ONLY {month.model}, ONLY {month.partition} IN ACCESS EXCLUSIVE MODE".encode()
                )
            return
        except psycopg.errors.LockNotAvailable:
            if tries == TRIES:
                raise
            await asyncio.sleep(TRY_AGAIN_S)


async def _size_bytes(connection: Connection, table: str) -> int:
    cursor = await connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


def _ends(month: Month) -> tuple[str, str]:
    return f"'{month.start.isoformat()}'", f"'{month.end.isoformat()}'"


def _bounds(month: Month) -> str:
    start, end = _ends(month)
    return f"({start}) TO ({end})"
