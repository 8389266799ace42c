"""Trying again: when it can help, ever more slowly, for a bounded time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from runtime.client.errors import ApiError, ClientError

Answer = TypeVar("Answer")

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats a call that is safe to repeat (it carries a `client_msg_id`, or only reads).

    Args:
        for_s: how long after the first failure to go on.
    """

    for_s: float

    async def __call__(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The first answer.

        Raises:
            ClientError: one that repeating cannot cure, or the last one when the time is up.
        """
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return await call()
            except ClientError as error:
                if not error.retryable:
                    raise
                now = loop.time()
                give_up_at = give_up_at or now + self.for_s
                asked_s = float(error.fields.get("retry_after", 0)) if isinstance(error, ApiError) else 0.0
                # Spread, so that clients that failed together do not come back together.
                pause_s = max(asked_s, wait_s * random.uniform(0.5, 1))  # noqa: S311
                if now + pause_s > give_up_at:
                    raise
                await asyncio.sleep(pause_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
