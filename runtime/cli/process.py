"""What `up` and `serve` share: a long-running process that stops when it is told to."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
import typer

from runtime.cli import fail
from runtime.cli.target import load_settings
from runtime.settings import Settings, masked, unknown_variables

HURRY_EXIT = 130  # a second signal ends the process without draining

T = TypeVar("T")

log = structlog.get_logger("riverrun")


def start_process(**overrides: Any) -> Settings:
    """The settings, with logging set up by them, and a warning for each variable that is none."""
    from dataclasses import replace

    from runtime import logs

    settings = replace(load_settings(), **{name: value for name, value in overrides.items() if value is not None})
    logs.configure(level=settings.log_level, form=settings.log_format)
    for warning in unknown_variables():
        log.warning(warning)
    return settings


def run_until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on uvloop; SIGINT or SIGTERM sets its event, a second one cancels it."""
    import uvloop

    uvloop.run(_run(main))


async def _run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        else:
            sys.stderr.write("stopping…\n")
            stop.set()

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, on_signal)
    try:
        await main(stop)
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signal_number)


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event, *, grace_s: float) -> T | None:
    """Await `work`; from when `stop` is set it has `grace_s` to end by itself, and is cancelled then.

    Returns:
        What `work` returned, or `None` when it was cancelled.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await asyncio.wait({working}, timeout=grace_s)
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait({working, stopping})
    return None if working.cancelled() else working.result()


@contextmanager
def plain_errors(settings: Settings) -> Iterator[None]:
    """Make one plain line and status 2 of what is expected to go wrong when a process starts."""
    import psycopg
    import redis

    from domain.errors import DomainError
    from runtime.embedded.errors import EmbeddedError
    from streams.ports import LogError

    try:
        yield
    except (EmbeddedError, DomainError, LogError) as error:
        fail(masked(str(error)))
    except (ConnectionError, TimeoutError, psycopg.OperationalError, redis.RedisError) as error:
        fail(f"a server does not answer: {_one_line(error)}")
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}:
            raise
        where = f"{settings.host}:{settings.port}"
        if settings.monitoring_port:
            where += f" or {settings.monitoring_host}:{settings.monitoring_port}"
        fail(f"cannot listen on {where}: {os.strerror(error.errno).lower()}")
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(HURRY_EXIT) from None


def _one_line(error: BaseException) -> str:
    return masked(" ".join(str(error).split()) or type(error).__name__)
