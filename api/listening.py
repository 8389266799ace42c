"""Subscriptions of the gateway: each is made once, however many wait for it, and only so many at a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from domain.errors import Unavailable
from streams.ports import Bus, BusError, Signal, Subscription

SUBSCRIBING_MAX: Final = 1_024  # at once, over all sessions; they wait for the server together, in one round trip


class Listening:
    """A subscription that is being made, or stands; shared by all who need it."""

    def __init__(self, subscribing: Coroutine[Any, Any, Subscription]) -> None:
        self.opening = asyncio.ensure_future(subscribing)

    @property
    def stands(self) -> bool:
        """Whether the server knows of it."""
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None

    async def ready(self) -> None:
        """Wait until it stands.

        Raises:
            Unavailable: it could not be made.
        """
        try:
            await asyncio.shield(self.opening)
        except BusError as error:
            raise Unavailable("push cannot be reached; try again") from error

    async def close(self) -> None:
        """End it."""
        # Not cancelled: the server may know of it by now, and would send for ever.
        (outcome,) = await asyncio.gather(self.opening, return_exceptions=True)
        if not isinstance(outcome, BaseException):
            await outcome.close()


class Listener:
    """Makes subscriptions on a bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscribing = asyncio.Semaphore(SUBSCRIBING_MAX)

    def listen(self, subject: str, callback: Callable[[Signal], None]) -> Listening:
        """Hear a subject from soon on; see `Listening.ready`."""

        async def subscribe() -> Subscription:
            async with self._subscribing:
                return await self._bus.subscribe(subject, callback)

        return Listening(subscribe())
