"""Proof that the read models are what the log says: a fold of its own, compared by conversation and by user.

The database is read in one snapshot, and the log up to the checkpoints in that snapshot, each read model up to its
own; so it compares exactly while others write. Histories are compared by count and digest, so memory follows the
number of conversations and of users' markers, not of messages. What has left the warm tier is compared as the cold tier
has it, so a read model is compared whole, wherever its rows lie. The log itself is checked too: versions and seqs
without a hole, no `client_msg_id` used twice by one sender.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

import psycopg

from domain.events import Event
from projections import log_fold, log_fold_users
from projections.differences import Difference, ModelReport, Report
from projections.digests import Digest
from projections.reading import Row
from projections.telling import Counter, Tell, untold
from projections.tiers.cold import ColdRows
from projections.tiers.months import MODELS
from projections.tiers.moved import merged, moved_months, moved_rows
from streams import subjects
from streams.codec import decode
from streams.ports import Log

_POLL_S = 0.05
_ROWS_A_FETCH = 2_000

Key: TypeAlias = int | str  # a conversation's id, or a user's


class CannotCompare(Exception):
    """There is nothing to compare with: a server or a schema is missing, or the projections do not run."""


class LogFold(Protocol):
    """Folds one partition's log into what the read models of a family must hold, and knows nothing of the projections.

    Attributes:
        events: how many were taken.
        faults: where the log contradicts itself.
    """

    events: int
    faults: list[Difference]

    def __len__(self) -> int:
        """How many conversations or users the log has."""
        ...

    def add(self, sequence: int, event: Event) -> None:
        """Take the next event."""
        ...

    def expected(self, model: str) -> Iterator[tuple[Key, Digest]]:
        """Of each conversation or user with rows in a read model: the id, and the digest of those rows."""
        ...


class _Family(NamedTuple):
    """How the read models of a family are verified. `keys`: what they are compared by."""

    keys: str
    projections: tuple[str, ...]
    rows: Mapping[str, str]
    make_fold: Callable[[dict[str, int]], LogFold]


_FAMILIES = {
    subjects.CONV: _Family("conversations", log_fold.PROJECTIONS, log_fold.ROWS, log_fold.ConversationsFold),
    subjects.USER: _Family("users", log_fold_users.PROJECTIONS, log_fold_users.ROWS, log_fold_users.UsersFold),
}


class _Partition(NamedTuple):
    family: str
    number: int

    @property
    def stream(self) -> str:
        return subjects.stream(self.family, self.number)


async def verify(
    log: Log,
    postgres_url: str,
    *,
    partitions: int,
    wait_s: float,
    cold: ColdRows | None = None,
    tell: Tell = untold,
) -> Report:
    """Compare log and read models.

    Args:
        cold: where rows are that have left Postgres.
        wait_s: how long the read models may take to reach the log's end as it is now; what they have not
            reached by then is reported, and the comparison made as far as they are.
        tell: of the events that were folded, and then of the rows of each read model.

    Raises:
        CannotCompare: Postgres or the schema is missing, or a projection has never run; or rows have left Postgres and
            there is no cold tier.
        LogUnavailable: the log cannot be read.
    """
    read = [_Partition(family, number) for family in _FAMILIES for number in range(partitions)]
    ends = {partition: await log.last_sequence(partition.stream) for partition in read}
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            reached = await _wait(lambda: _checkpoints(connection, read), ends, wait_s)
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            async with connection.transaction():
                # No month leaves meanwhile: a table that is replaced is gone from a snapshot that is older.
                await connection.execute("LOCK TABLE ONLY messages, ONLY changes IN ACCESS SHARE MODE")
                checkpoints = await _checkpoints(connection, read)
                folds: dict[str, list[LogFold]] = {family: [] for family in _FAMILIES}
                counter = Counter(tell, "events", sum(max(at.values()) for at in checkpoints.values()))
                for partition in read:
                    folds[partition.family].append(await _fold(log, partition, checkpoints[partition], counter))
                models = [
                    await _compare(connection, model, _FAMILIES[family], folds[family], cold, tell=tell)
                    for family in _FAMILIES
                    for model in _FAMILIES[family].rows
                ]
    except psycopg.Error as error:
        raise CannotCompare(f"Postgres: {' '.join(str(error).split())}") from error
    behind = [] if reached else [Difference("checkpoints", f"not at the log's end after {wait_s:g} s")]
    every = [fold for family in folds.values() for fold in family]
    return Report(
        events=sum(fold.events for fold in every),
        conversations=sum(map(len, folds[subjects.CONV])),
        users=sum(map(len, folds[subjects.USER])),
        models=models,
        faults=[*behind, *(fault for fold in every for fault in fold.faults)],
    )


_Checkpoints = dict[_Partition, dict[str, int]]


async def _wait(checkpoints: Callable[[], Awaitable[_Checkpoints]], ends: dict[_Partition, int], wait_s: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    while any(min(at.values()) < ends[partition] for partition, at in (await checkpoints()).items()):
        if clock() > deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def _checkpoints(connection: psycopg.AsyncConnection[Any], read: list[_Partition]) -> _Checkpoints:
    cursor = await connection.execute("SELECT partition, projection, sequence FROM checkpoints")
    found = {(number, projection): sequence for number, projection, sequence in await cursor.fetchall()}
    try:
        return {at: {name: found[at.number, name] for name in _FAMILIES[at.family].projections} for at in read}
    except KeyError as missing:
        number, projection = missing.args[0]
        raise CannotCompare(f"the projection {projection} has never run on partition {number}") from None


async def _fold(log: Log, partition: _Partition, checkpoints: dict[str, int], counter: Counter) -> LogFold:
    fold = _FAMILIES[partition.family].make_fold(checkpoints)
    async for delivery in log.read(partition.stream, up_to_sequence=max(checkpoints.values())):
        try:
            event = decode(delivery)
        except Exception as error:  # noqa: BLE001  # whatever it is that cannot be read is to be reported
            fold.faults.append(Difference("log", f"{partition.stream} sequence {delivery.sequence}: {error!r}"))
        else:
            fold.add(delivery.sequence, event)
        counter.passed()
    return fold


async def _compare(
    connection: psycopg.AsyncConnection[Any],
    model: str,
    family: _Family,
    folds: list[LogFold],
    cold: ColdRows | None,
    *,
    tell: Tell,
) -> ModelReport:
    expected = {key: digest for fold in folds for key, digest in fold.expected(model)}
    rows = sum(digest.count for digest in expected.values())
    report = ModelReport(model, family.keys, key_count=len(expected), rows=rows)
    counter = Counter(tell, model, rows)
    async for key, digest in _found(connection, model, family.rows[model], cold, counter):
        wanted = expected.pop(key, Digest())
        if digest != wanted:
            report.differences.append(_difference(model, key, _what(wanted, digest)))
    report.differences += [_difference(model, key, _what(wanted, Digest())) for key, wanted in expected.items()]
    return report


def _difference(model: str, key: Key, what: str) -> Difference:
    if isinstance(key, int):
        return Difference(model, what, conversation_id=key)
    return Difference(model, what, user_id=key)


def _what(wanted: Digest, found: Digest) -> str:
    if wanted.count != found.count:
        return f"{wanted.count} rows in the log, {found.count} in the read model"
    return f"{wanted.count} rows, with another content"


async def _found(
    connection: psycopg.AsyncConnection[Any], model: str, statement: str, cold: ColdRows | None, counter: Counter
) -> AsyncIterator[tuple[Key, Digest]]:
    """The digest of the rows of each conversation or user in the database, and of those that have left it."""
    digests: dict[Key, Digest] = {}
    ordered = "ORDER BY" in statement
    rows = _rows(connection, model, statement)
    if model in MODELS and (months := await moved_months(connection, model)):
        if cold is None:
            raise CannotCompare(f"{model} have left Postgres, and the archive cannot be reached")
        rows = merged(rows, moved_rows(cold, model, months))
    async for row in rows:
        digest = digests.setdefault(row[0], Digest())
        if ordered:
            digest.add_next(row)
        else:
            digest.add(row)
        counter.passed()
    for item in digests.items():
        yield item


async def _rows(connection: psycopg.AsyncConnection[Any], model: str, statement: str) -> AsyncIterator[Row]:
    async with connection.cursor(f"verify_{model}") as cursor:
        cursor.itersize = _ROWS_A_FETCH
        await cursor.execute(statement)
        async for row in cursor:
            yield tuple(value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)
