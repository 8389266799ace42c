"""The tasks a process runs for its whole life: each has a name, an owner, and an order in which it ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Services:
    """Tasks that must not end by themselves. One that does takes the process down, with its error."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a task until `stop`."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def until(self, condition: Coroutine[Any, Any, None]) -> None:
        """Wait for a condition.

        Raises:
            Exception: that of a task that failed meanwhile.
        """
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(condition), self._failed]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            waiting[0].result()
        finally:
            waiting[0].cancel()

    async def watch(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set.

        Raises:
            Exception: that of the first task that failed.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            waiting: list[asyncio.Future[Any]] = [stopping, self._failed]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        finally:
            self._stopping = True
            stopping.cancel()

    async def stop(self) -> None:
        """End all tasks, the last started first, each before the next. Idempotent."""
        while self._tasks:
            task = self._tasks.pop()
            task.remove_done_callback(self._ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._failed.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._failed.done() or (self._stopping and task.exception() is None):
            return
        error = task.exception() or RuntimeError("it ended by itself")
        log.error("a service failed", service=task.get_name(), error=repr(error), exc_info=error)
        self._failed.set_exception(error)
