"""Whose turn it is to begin: sessions are let in a bounded number at a time, in the order they came.

When a gateway has died the others are asked for thousands of sessions in one moment. What all of them wait for
together (subscriptions, read models that catch up) costs next to nothing a session, and is not done in turns: that
would be waited for over and over. What is read and pushed for each is: Postgres is asked no more than it answers in
time, and those already connected are served in between.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.refusals import Crowded


class Turns:
    """Not for threads.

    Args:
        at_once: have their turn.
        waiting_max: wait for it; one more is refused.
    """

    def __init__(self, *, at_once: int, waiting_max: int) -> None:
        self._gate = asyncio.Semaphore(at_once)  # first come, first served
        self._waiting = 0
        self._waiting_max = waiting_max

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, and have it while the context lasts.

        Raises:
            Crowded: too many wait.
        """
        if self._waiting >= self._waiting_max:
            raise Crowded("too many sessions begin here at once; try again")
        self._waiting += 1
        try:
            await self._gate.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._gate.release()
