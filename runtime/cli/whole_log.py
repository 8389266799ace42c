"""The log with the archive it continues in, for commands that read it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import typer

from domain.errors import DomainError
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.reading import ClickHouseArchive
from runtime.cli import fail
from runtime.cli.target import Target
from runtime.logs import configure
from runtime.settings import masked
from runtime.terminal import reader_may_leave
from streams.archived import ArchivedLog
from streams.jetstream import JetStream
from streams.ports import Log, LogError

T = TypeVar("T")


@asynccontextmanager
async def whole_log(target: Target, command: str) -> AsyncIterator[Log]:
    """The log of a deployment while the context lasts. The archive is asked only where the log was trimmed.

    Raises:
        LogUnavailable: it does not answer.
    """
    jetstream = await JetStream.connect(target.nats_url, name=f"riverrun-{command}")
    clickhouse = ClickHouse(target.clickhouse_url)  # opened when it is first asked
    try:
        yield ArchivedLog(jetstream.log, ClickHouseArchive(clickhouse))
    finally:
        await clickhouse.close()
        await jetstream.close()


def run_plainly(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what reads; what is expected to go wrong is one plain line and status 2, a reader that leaves or Ctrl-C 0."""
    configure(level="error", form="auto")
    logging.disable()  # it is told below
    try:
        with reader_may_leave():
            return asyncio.run(work())
    except (LogError, ArchiveRefused, DomainError, OSError) as error:
        fail(masked(" ".join(str(error).split())))
    except KeyboardInterrupt:
        pass
    raise typer.Exit
