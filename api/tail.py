"""Waiting until the read models have all that was in the log at a moment after one began to listen.

Who subscribes first and then waits here has a seam without a gap: what was stored before is read, what is stored
after is heard.
"""

import asyncio
from typing import Protocol

from domain.errors import Unavailable
from projections.pages import Positions
from streams import subjects
from streams.ports import Log, LogUnavailable

PATIENCE_S = 5.0  # the read models are milliseconds behind; seconds only under a flood
POLL_FIRST_S, POLL_MAX_S = 0.005, 0.1


class PositionReader(Protocol):
    """Of `projections.queries.Queries`."""

    async def positions(self) -> Positions:
        """For each partition the sequence up to which every read model has it."""
        ...


class Tail:
    """One look at the log and one round of waiting serve everybody who asked before it began."""

    def __init__(self, log: Log, queries: PositionReader) -> None:
        self._log = log
        self._queries = queries
        self._waiting: list[asyncio.Future[Positions]] = []
        self._round: asyncio.Task[None] | None = None

    async def caught_up(self) -> Positions:
        """Wait until the read models have everything that is in the log now; their positions then.

        Raises:
            Unavailable: the log or Postgres cannot be reached, or the read models are further behind than
                `PATIENCE_S`.
        """
        future: asyncio.Future[Positions] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._round is None:
            self._round = asyncio.create_task(self._rounds())
        return await future

    async def close(self) -> None:
        """End the waiting; whoever waits is told `Unavailable`."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _rounds(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    positions = await self._catch_up()
                except BaseException as error:
                    refusal = error if isinstance(error, Unavailable) else Unavailable("the gateway stops; try again")
                    _settle(waiting, refusal)
                    if not isinstance(error, Unavailable):
                        raise
                else:
                    _settle(waiting, positions)
        finally:
            _settle(self._waiting, Unavailable("the gateway stops; try again"))
            self._waiting = []
            self._round = None

    async def _catch_up(self) -> Positions:
        clock = asyncio.get_running_loop().time
        deadline_s, poll_s = clock() + PATIENCE_S, POLL_FIRST_S
        partitions = range(len((await self._queries.positions()).conversations))
        try:
            ends = [
                await self._log.last_sequence(subjects.stream(family, partition))
                for family in (subjects.CONV, subjects.USER)
                for partition in partitions
            ]
        except LogUnavailable as error:
            raise Unavailable("the log cannot be reached; try again") from error
        while True:
            positions = await self._queries.positions()
            reached = (*positions.conversations, *positions.users)
            if all(position >= end for position, end in zip(reached, ends, strict=True)):
                return positions
            if clock() >= deadline_s:
                raise Unavailable("the read models are too far behind the log; try again")
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, POLL_MAX_S)


def _settle(waiting: "list[asyncio.Future[Positions]]", outcome: Positions | Unavailable) -> None:
    for future in waiting:
        if future.done():
            continue
        if isinstance(outcome, Unavailable):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
