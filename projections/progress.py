"""How far the workers of this process have come, told to whoever waits for it."""

import asyncio


class Progress:
    """A bell: each worker rings it after a commit, and the queries that wait for a version look again.

    It says that something moved, not what: the database is asked. Workers of other processes do not ring it,
    so whoever waits also polls.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake all who wait now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next ring, or after the timeout."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self._waiting.discard(future)
