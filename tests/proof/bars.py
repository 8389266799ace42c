"""What one sees while a proof runs: a bar a step on a terminal, and elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SAY_EVERY_S: Final = 15.0  # where there is no terminal


class Bar(Protocol):
    """How far a step is."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """So many are done; of so many, where that was not known before."""
        ...


class Bars:
    """On stderr.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, quiet=quiet)

    @contextmanager
    def step(self, name: str, total: int = 0) -> Iterator[Bar]:
        """One step, from its beginning to its end."""
        if not self._console.is_terminal:
            yield _Lines(name, total, quiet=self._quiet)
            return
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console) as progress:
            task, began_s = progress.add_task(name, total=total or None, rate=""), time.monotonic()

            def show(done: int, total: int | None = None) -> None:
                rate = f"{done / max(0.001, time.monotonic() - began_s):,.0f}/s"
                progress.update(task, completed=done, total=total, rate=rate)

            yield show


class _Lines:
    def __init__(self, name: str, total: int, *, quiet: bool) -> None:
        self._name, self._total, self._quiet = name, total, quiet
        self._began_s = self._said_s = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """See `Bar`."""
        self._total, now_s = total or self._total, time.monotonic()
        if not self._quiet and now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            rate = done / (now_s - self._began_s)
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self._name}: {done:,} of {self._total:,}, {rate:,.0f}/s\n")
            sys.stderr.flush()
