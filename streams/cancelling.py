"""Ending a task that others' code may keep from noticing.

psycopg's pool, redis-py and nats-py wait within `asyncio.wait_for`, which on Python 3.11 may swallow a cancellation
that comes in the very moment the waiting ends (redis-py's: 108 of 400, measured). A loop that went on would never stop,
and whoever ended it would wait for ever.
"""

import asyncio


def raise_if_cancelled() -> None:
    """For loops that are to end when they are cancelled: once a turn.

    Raises:
        CancelledError: this task was cancelled, and the cancellation swallowed.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
