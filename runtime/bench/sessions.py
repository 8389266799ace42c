"""The sessions of one process: opened a bounded number at a time, kept alive, opened again, closed.

Runs of load go through them, one after the other. They make no load themselves, and count nothing.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from runtime.bench.adapter import Adapter, Seat, Session
from runtime.bench.inbox import UserInbox

OPENING_AT_ONCE: Final = 64  # well inside a listen backlog of 100
KEEP_ALIVE_S: Final = 20.0
FIRST_NUMBER: Final = 10  # of an operation; adapters have the lower ones for themselves


class Sessions:
    """Made by `open_sessions`.

    Attributes:
        inboxes: one a seat, in their order.
        numbers: of operations. They go on from run to run, because a server may take a number that comes again for the
            same operation.
    """

    def __init__(self, adapter: Adapter, seats: Sequence[Seat], *, resumable: bool) -> None:
        self.adapter = adapter
        self.inboxes = [UserInbox(seat) for seat in seats]
        self.numbers = itertools.count(FIRST_NUMBER)
        self._resumable = resumable

    async def open(self, at_once: int) -> None:
        """Open all, so many at a time.

        Raises:
            BenchError, ClientError: one could not be opened. Those that were are still to be closed.
        """
        gate = asyncio.Semaphore(at_once)

        async def gated(inbox: UserInbox) -> None:
            async with gate:
                inbox.session = await self.adapter.connect(inbox.seat, inbox, resumable=self._resumable)

        opening = [asyncio.create_task(gated(inbox)) for inbox in self.inboxes]
        try:
            await asyncio.gather(*opening)
        except BaseException:
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            raise

    async def follow(self, inbox: UserInbox, ended: Session) -> None:
        """Open a session that begins where another of the same user ended.

        Raises:
            BenchError, ClientError: it could not be opened.
        """
        inbox.session = await self.adapter.connect(inbox.seat, inbox, resumable=True, follows=ended)

    async def close(self) -> None:
        """End all."""
        open_ones = [inbox.session for inbox in self.inboxes if inbox.session is not None]
        for inbox in self.inboxes:
            inbox.session = None
        await asyncio.gather(*(session.close() for session in open_ones), return_exceptions=True)

    async def keep_alive(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            for inbox in self.inboxes:
                if inbox.session is not None:
                    inbox.session.keep_alive()


@asynccontextmanager
async def open_sessions(
    adapter: Adapter, seats: Sequence[Seat], *, resumable: bool = False, at_once: int = OPENING_AT_ONCE
) -> AsyncIterator[Sessions]:
    """A session of each seat's user until the context ends.

    Args:
        resumable: another may follow each.
        at_once: how many are opened at a time.

    Raises:
        BenchError, ClientError: one could not be opened. One that ends later is told to the run.
    """
    sessions = Sessions(adapter, seats, resumable=resumable)
    try:
        await sessions.open(at_once)
        keeping = asyncio.create_task(sessions.keep_alive())
        try:
            yield sessions
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    finally:
        await sessions.close()
