"""Reading the database: the connection, the timeouts, and what "not now" is called.

Everything that is read for clients goes through here, so that an outage of Postgres is the same refusal everywhere.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound, Unavailable
from domain.ids import partition_of, slot_of
from projections.pages import Positions
from projections.progress import Progress
from projections.projection import Connection
from streams import subjects

POOL_S = 3.0  # without a connection by then, Postgres counts as down; in a storm of sessions some wait for one
STATEMENT_S = 5.0  # a page takes milliseconds
POLL_FIRST_S, POLL_MAX_S = 0.005, 0.050  # for workers of other processes, which cannot ring

Row = tuple[Any, ...]

_READ_MODELS = ["conversations", "heads", "messages"]  # the projections of a conversation's events

IS_MEMBER = "EXISTS (SELECT FROM members WHERE conversation_id = %(id)s AND user_id = %(user)s)"

# The partition of a conversation, in SQL: `partition_of(slot_of(id), partitions)`.
PARTITION = "((({id}) >> 12) & 1023) %% %(partitions)s"

# Up to which sequence all read models of a partition have come, by family; for `positions_of`.
POSITIONS = """
    SELECT 'conv', partition, min(sequence) FROM checkpoints
    WHERE projection IN ('conversations', 'heads', 'messages') GROUP BY partition HAVING count(*) = 3
    UNION ALL
    SELECT 'user', partition, min(sequence) FROM checkpoints
    WHERE projection IN ('markers', 'users') GROUP BY partition HAVING count(*) = 2"""

# Whether the user is a member, and whether all read models have applied the version.
_REACHED = f"""
    SELECT {IS_MEMBER},
        (SELECT count(*) = cardinality(%(models)s::text[]) AND min(sequence) >= (
            SELECT sequence FROM changes WHERE conversation_id = %(id)s AND version >= %(version)s
            ORDER BY version LIMIT 1)
         FROM checkpoints WHERE partition = %(partition)s AND projection = ANY(%(models)s))"""


# The locks come before the moment that is seen: a month that is being replaced (`projections.tiers.moves`) is waited
# for. Seen as of before that, its new table would be empty. Two statements, one round trip.
_AS_OF_NOW = """
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
    LOCK TABLE ONLY messages, ONLY changes IN ACCESS SHARE MODE"""


class Snapshot:
    """Statements that all see the database as it was at one moment. Made by `Database.snapshot`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, statement: str, values: dict[str, Any]) -> Sequence[Row]:
        """What a statement gives."""
        cursor = await self._connection.execute(statement, values, prepare=True, binary=True)
        return await cursor.fetchall()


class Database:
    """The read models, to be read from.

    Args:
        pool: opened and closed by its maker.

    All methods raise `Unavailable` when Postgres does not answer in time.
    """

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def rows(self, statement: str, values: dict[str, Any]) -> Sequence[Row]:
        """What one statement gives; it sees the database as it is at one moment."""
        async with self._connection() as connection:
            return await Snapshot(connection).rows(statement, values)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Several statements over one moment."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_AS_OF_NOW)
            yield Snapshot(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(STATEMENT_S), self._pool.connection(timeout=POOL_S) as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
            raise Unavailable("the read models cannot be reached; try again") from error


class MinVersion:
    """Reads that wait for a write.

    Args:
        wait_s: how long at most.
        partitions: of the deployment; places a conversation's checkpoints.
        progress: rung by the workers of this process, if it has any.
    """

    def __init__(self, database: Database, *, wait_s: float, partitions: int, progress: Progress | None = None) -> None:
        self._database = database
        self._wait_s = wait_s
        self._partitions = partitions
        self._progress = progress or Progress()

    async def reached(self, conversation_id: int, user_id: str | None, min_version: int) -> None:
        """Wait until all read models have applied a version of a conversation, and the user, if given, is a member.

        Who is not waits as long whether or not the conversation exists.

        Raises:
            NotFound: the user is not a member. Unavailable: the version does not come in time.
        """
        if min_version <= 0:
            return
        values = {
            "id": conversation_id,
            "user": user_id,
            "version": min_version,
            "models": _READ_MODELS,
            "partition": partition_of(slot_of(conversation_id), self._partitions),
        }
        clock = asyncio.get_running_loop().time
        deadline_s, poll_s = clock() + self._wait_s, POLL_FIRST_S
        while True:
            is_member, reached = (await self._database.rows(_REACHED, values))[0]
            if reached and (is_member or user_id is None):
                return
            left_s = deadline_s - clock()
            if left_s <= 0:
                break
            await self._progress.wait(min(poll_s, left_s))
            poll_s = min(2 * poll_s, POLL_MAX_S)
        if user_id is not None and not is_member:
            raise no_such_conversation()
        raise Unavailable(f"version {min_version} cannot be read yet; try again")


def positions_of(rows: Sequence[Row], partitions: int) -> Positions:
    """What the statement `POSITIONS` found; 0 where a read model has not begun."""
    found = {(family, partition): sequence for family, partition, sequence in rows}
    return Positions(*(tuple(found.get((family, p), 0) for p in range(partitions)) for family in subjects.FAMILIES))


def no_such_conversation() -> NotFound:
    """What a stranger is told, whether or not there is such a conversation."""
    return NotFound("there is no such conversation")
