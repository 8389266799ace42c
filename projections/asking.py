"""Asking Valkey: with a bound on the time, and without losing a cancellation."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def answer(asked: Awaitable[T], timeout_s: float) -> T:
    """What Valkey answers.

    A cancellation that redis-py swallowed (`streams.cancelling`) is raised here.

    Raises:
        TimeoutError: no answer in time. redis.RedisError, OSError: Valkey refused, or is not there.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()  # who cleans up after a cancellation may ask as well
    async with asyncio.timeout(timeout_s):
        found = await asked
    if task.cancelling() > cancelled:
        raise asyncio.CancelledError
    return found
