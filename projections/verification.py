"""Proof that the read models are what the log says: a fold of its own, compared conversation by conversation.

The database is read in one snapshot, and the log up to the checkpoints in that snapshot, each read model up to its
own; so it compares exactly while others write. Histories are compared by count and digest, so memory follows the
number of conversations, not of messages. The log itself is checked too: versions and seqs without a hole, no
`client_msg_id` used twice by one sender.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg

from projections.differences import Difference, ModelReport, Report
from projections.log_fold import Digest, LogFold
from streams import subjects
from streams.codec import decode
from streams.ports import Log

PROJECTIONS = ("conversations", "heads", "messages")
_POLL_S = 0.05
_ROWS_A_FETCH = 2_000

# In the order of each model's key, with the columns that `LogFold` digests, in its order.
_ROWS = {
    "conversations": "SELECT conversation_id, kind, name, settings, created_by, created_at, member_count "
    "FROM conversations",
    "members": "SELECT conversation_id, user_id, role, joined_seq, joined_at FROM members",
    "heads": "SELECT conversation_id, version, sequence, updated_at, last_seq, last_message_id, last_sender_id, "
    "last_message_at, preview FROM heads",
    "messages": "SELECT conversation_id, seq, created_at, version, sequence, message_id, sender_id, client_msg_id, "
    "reply_to, body, mentions FROM messages ORDER BY conversation_id, seq",
    "changes": "SELECT conversation_id, version, occurred_at, sequence, type, actor_id, data "
    "FROM changes ORDER BY conversation_id, version",
}


class CannotCompare(Exception):
    """There is nothing to compare with: a server or a schema is missing, or the projections do not run."""


async def verify(log: Log, postgres_url: str, *, partitions: int, wait_s: float, family: str = subjects.CONV) -> Report:
    """Compare log and read models.

    Args:
        wait_s: how long the read models may take to reach the log's end as it is now; what they have not
            reached by then is reported, and the comparison made as far as they are.

    Raises:
        CannotCompare: Postgres or the schema is missing, or a projection has never run.
        LogUnavailable: the log cannot be read.
    """
    streams = [subjects.stream(family, partition) for partition in range(partitions)]
    ends = [await log.last_sequence(stream) for stream in streams]
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            reached = await _wait(lambda: _checkpoints(connection, partitions), ends, wait_s)
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            async with connection.transaction():
                checkpoints = await _checkpoints(connection, partitions)
                folds = [await _fold(log, stream, at) for stream, at in zip(streams, checkpoints, strict=True)]
                models = [await _compare(connection, model, folds) for model in _ROWS]
    except psycopg.Error as error:
        raise CannotCompare(f"Postgres: {' '.join(str(error).split())}") from error
    behind = [] if reached else [Difference("checkpoints", None, f"not at the log's end after {wait_s:g} s")]
    return Report(
        events=sum(fold.events for fold in folds),
        conversations=sum(len(fold.conversations) for fold in folds),
        models=models,
        faults=[*behind, *(fault for fold in folds for fault in fold.faults)],
    )


async def _wait(checkpoints: Callable[[], Awaitable[list[dict[str, int]]]], ends: list[int], wait_s: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    while any(min(at.values()) < end for at, end in zip(await checkpoints(), ends, strict=True)):
        if clock() > deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def _checkpoints(connection: psycopg.AsyncConnection[Any], partitions: int) -> list[dict[str, int]]:
    cursor = await connection.execute("SELECT partition, projection, sequence FROM checkpoints")
    found = {(partition, projection): sequence for partition, projection, sequence in await cursor.fetchall()}
    try:
        return [{name: found[partition, name] for name in PROJECTIONS} for partition in range(partitions)]
    except KeyError as missing:
        partition, projection = missing.args[0]
        raise CannotCompare(f"the projection {projection} has never run on partition {partition}") from None


async def _fold(log: Log, stream: str, checkpoints: dict[str, int]) -> LogFold:
    fold = LogFold(checkpoints)
    async for delivery in log.read(stream, up_to_sequence=max(checkpoints.values())):
        try:
            event = decode(delivery)
        except Exception as error:  # noqa: BLE001  # whatever it is that cannot be read is to be reported
            fold.faults.append(Difference("log", None, f"{stream} sequence {delivery.sequence}: {error!r}"))
        else:
            fold.add(delivery.sequence, event)
    return fold


async def _compare(connection: psycopg.AsyncConnection[Any], model: str, folds: list[LogFold]) -> ModelReport:
    expected = {id_: digest for fold in folds for id_, digest in fold.expected(model)}
    report = ModelReport(model, conversations=len(expected), rows=sum(digest.count for digest in expected.values()))
    async for id_, digest in _found(connection, model):
        wanted = expected.pop(id_, Digest())
        if digest != wanted:
            report.differences.append(Difference(model, id_, _what(wanted, digest)))
    report.differences += [Difference(model, id_, _what(wanted, Digest())) for id_, wanted in expected.items()]
    return report


def _what(wanted: Digest, found: Digest) -> str:
    if wanted.count != found.count:
        return f"{wanted.count} rows in the log, {found.count} in the read model"
    return f"{wanted.count} rows, with another content"


async def _found(connection: psycopg.AsyncConnection[Any], model: str) -> AsyncIterator[tuple[int, Digest]]:
    """The digest of each conversation's rows in the database. Only what is unordered is held whole."""
    digests: dict[int, Digest] = {}
    ordered = model in ("messages", "changes")
    async with connection.cursor(f"verify_{model}") as cursor:
        cursor.itersize = _ROWS_A_FETCH
        await cursor.execute(_ROWS[model])
        async for row in cursor:
            row = tuple(value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)
            digest = digests.setdefault(row[0], Digest())
            if ordered:
                digest.add_next(row)
            else:
                digest.add(row)
    for item in digests.items():
        yield item
