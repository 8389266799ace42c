"""Dead events, applied after all, once what was wrong is mended.

Whether one could be applied late depends on what came after it, so it is not: what the projection has of its aggregate
is dropped and folded anew from the log, all of it, in one transaction.
"""

from collections.abc import Sequence

from projections.catalogue import tables_of
from projections.dead import DeadEvent, mark_replayed
from projections.projection import Connection, LoggedEvent, Projection
from projections.reader import BATCH_MAX
from streams import subjects
from streams.codec import decode
from streams.ports import Log, LogUnavailable


async def replay(log: Log, connection: Connection, projection: Projection, dead: Sequence[DeadEvent]) -> None:
    """Fold an aggregate of which events have died anew, and take them off the list. It may be repeated.

    The projection's worker, if it runs, waits meanwhile: for as long as it takes to read the aggregate's history.

    Args:
        dead: of one aggregate and this projection.

    Raises:
        LogUnavailable: the log cannot be reached, or a replica of it lags.
        Exception: an event of the aggregate still cannot be applied. Nothing has changed.
    """
    _, stream, subject = dead[0].aggregate
    partition = int(stream.rpartition("-")[2])
    async with connection.transaction():
        cursor = await connection.execute(
            "SELECT sequence FROM checkpoints WHERE projection = %s AND partition = %s FOR UPDATE",
            (projection.name, partition),
        )
        row = await cursor.fetchone()
        checkpoint = row[0] if row else 0
        history = [logged for logged in await _history(log, stream, subject) if logged.sequence <= checkpoint]
        for table, key in _rows(projection.name, subject):
            await connection.execute(f"DELETE FROM {table} WHERE {key[0]} = %s".encode(), (key[1],))
        for start in range(0, len(history), BATCH_MAX):
            await projection.apply(connection, history[start : start + BATCH_MAX])
    await mark_replayed(log, dead)


async def _history(log: Log, stream: str, subject: str) -> list[LoggedEvent]:
    """All events of an aggregate: up to the one that the stream's leader names as the last."""
    last = await log.last(stream, subject)
    history = [LoggedEvent(delivery.sequence, decode(delivery)) async for delivery in log.read(stream, subject=subject)]
    if last is not None and (not history or history[-1].sequence < last.sequence):
        raise LogUnavailable(f"{subject} could not be read up to its last event, sequence {last.sequence}; try again")
    return history


def _rows(projection: str, subject: str) -> list[tuple[str, tuple[str, int | str]]]:
    """The tables in which a projection has rows of an aggregate, and the column and value that tell them."""
    id_ = subjects.aggregate_id(subject)
    key: tuple[str, int | str]
    if subjects.family_of(subject) == subjects.USER:
        key = ("user_id", id_)
    elif id_.isdecimal():
        key = ("conversation_id", int(id_))
    else:
        return []  # a reservation or a pair, of which no rows are kept
    return [(table.name, key) for table in tables_of(projection)]
