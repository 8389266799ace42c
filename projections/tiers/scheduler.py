"""The store scheduler: moves months out of the warm tier, and trims the log, round after round, one process at a time.

A round looks at everything and remembers nothing, so it does not matter where the last one ended, or how. What cannot
be moved now, because the archive is behind, or the tiers differ, or somebody reads for long, is told and left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from domain.errors import Unavailable
from projections import metrics
from projections.archive.clickhouse import ArchiveRefused
from projections.projection import Connection
from projections.telling import Tell, untold
from projections.tiers import sums
from projections.tiers.cold import Cold
from projections.tiers.leftovers import clear, may_leave
from projections.tiers.months import MODELS, Month, warm_months
from projections.tiers.moves import Busy, Differs, move
from projections.tiers.policy import Leaving, WarmPolicy
from projections.tiers.trimming import LogDiffers, Trim, Trimmer
from streams.ports import LogUnavailable

NOT_MOVED: Final[tuple["Outcome", ...]] = ("waiting", "busy", "differs")
LOCK: Final = 0x52695665_00000003  # "RiVe", 3: the advisory lock of the one that moves

log_ = structlog.get_logger(__name__)

Outcome: TypeAlias = Literal["moved", "trimmed", "due", "waiting", "busy", "differs"]


class Step(NamedTuple):
    """What a round found of a month of a read model, or of a stream of the log, and did.

    Attributes:
        what: the read model, or `log`.
        part: the month, or the stream.
        outcome: `moved`: rows have left; `trimmed`: events. `due`: they would, in a round that is not dry. `waiting`:
            not all of the month
            is in the cold tier yet. `busy`: somebody reads it for long. `differs`: the tiers do not agree.
        rows: that have left, or would at the most.
        why: one line, where there is something to be said.
    """

    what: str
    part: str
    outcome: Outcome
    rows: int
    why: str = ""


class StoreScheduler:
    """Moves months of one deployment.

    Args:
        pool: opened and closed by its maker; one connection is held during a round.
        now: what time it is, for the policies.
        trimmer: `None` where all of the log stays.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        cold: Cold,
        policy: WarmPolicy,
        *,
        now: Callable[[], datetime],
        trimmer: Trimmer | None = None,
    ) -> None:
        self._pool = pool
        self._cold = cold
        self._policy = policy
        self._now = now
        self._trimmer = trimmer

    async def run(self, every_s: float) -> None:
        """A round every so often, until cancelled; through outages of Postgres and of ClickHouse, it waits."""
        while True:
            outcomes: list[Outcome] = []
            try:
                async for step in self.round():
                    outcomes.append(step.outcome)
                    _tell(step)
            except (Unavailable, LogUnavailable, ArchiveRefused, psycopg.Error, PoolTimeout, OSError) as error:
                log_.warning("tiers could not be seen to", error=" ".join(str(error).split()))
            for outcome in NOT_MOVED:
                metrics.LEFT_OVER.labels(outcome).set(outcomes.count(outcome))
            await asyncio.sleep(every_s)

    async def round(self, *, dry_run: bool = False, tell: Tell = untold) -> AsyncIterator[Step]:
        """Everything that is to be done now: month by month, the oldest first, then stream by stream.

        Nothing while another one works.

        Args:
            dry_run: only tell.
            tell: told as a month or a stream is begun and when it has left, and of a stream also as it goes on.

        Raises:
            Unavailable, LogUnavailable: ClickHouse does not answer. psycopg.Error: Postgres does not.
        """
        async with self._pool.connection() as connection, _alone(connection) as is_alone:
            if not is_alone:
                return
            for model in MODELS:
                for month in await warm_months(connection, model):
                    leaving = self._policy.leaving(month.end, self._now())
                    if not leaving:
                        continue
                    part = f"{month.model} {month.name}"
                    tell(part, 0, month.rows)
                    if step := await self._step(connection, month, leaving, dry_run=dry_run):
                        if step.outcome == "moved":
                            tell(part, step.rows, step.rows)
                        yield step
            if self._trimmer is not None:
                for planned in await self._trimmer.plan(connection, self._now()):
                    if planned.events:
                        yield await self._trim(self._trimmer, planned, dry_run=dry_run, tell=tell)

    async def _trim(self, trimmer: Trimmer, planned: Trim, *, dry_run: bool, tell: Tell) -> Step:
        if dry_run:
            return Step("log", planned.stream, "due", planned.events)

        def on_step(forgotten: int) -> None:
            tell(f"log {planned.stream}", forgotten, planned.events)

        on_step(0)
        try:
            return Step("log", planned.stream, "trimmed", await trimmer.trim(planned, on_step))
        except LogDiffers as error:
            return Step("log", planned.stream, "differs", 0, str(error))

    async def _step(self, connection: Connection, month: Month, leaving: Leaving, *, dry_run: bool) -> Step | None:
        rows, has_left = await _look(connection, month)
        leave = await may_leave(connection, month, leaving)
        if rows and not leave:
            return None
        in_cold = await sums.cold_count(self._cold.rows, month.model, month.start, month.end)
        is_whole = rows == in_cold
        if not is_whole and not has_left:
            return Step(month.model, month.name, "waiting", 0, f"{rows:,} rows, of which the archive has {in_cold:,}")
        if dry_run:
            return Step(month.model, month.name, "due", leave)
        try:
            if is_whole:
                moved = await move(connection, self._cold.rows, month, leaving=leaving)
            else:
                moved = await clear(connection, self._cold, month, leaving=leaving)
        except Busy as error:
            return Step(month.model, month.name, "busy", 0, str(error))
        except Differs as error:
            return Step(month.model, month.name, "differs", 0, str(error))
        return Step(month.model, month.name, "moved", moved.rows) if moved and moved.rows else None


async def _look(connection: Connection, month: Month) -> tuple[int, bool]:
    """How many rows a month has, and whether others have left it before."""
    cursor = await connection.execute(
        f"SELECT (SELECT count(*) FROM {month.partition}),"
        " EXISTS (SELECT FROM tier_moves WHERE model = %s AND month_start = %s)".encode(),
        (month.model, month.start),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[bool]:
    """Whether nobody else moves. Who is killed lets go as its connection ends."""
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
    is_alone = row is not None and bool(row[0])
    try:
        yield is_alone
    finally:
        if is_alone and not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def _tell(step: Step) -> None:
    tell = {"moved": log_.info, "trimmed": log_.info, "differs": log_.error}.get(step.outcome, log_.warning)
    tell(f"tiers: {step.outcome}", what=step.what, part=step.part, rows=step.rows, why=step.why)
