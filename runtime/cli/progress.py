"""How far long work is: a bar on a terminal, else a line now and then. On stderr: stdout is for what came of it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from projections.telling import Tell

EVERY_S: Final = 2.0  # between two plain lines of one phase


class Pace:
    """Of one phase: how fast it goes, and how long it will take."""

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s

    def rate(self, done: int, now_s: float) -> float:
        """How much a second since the phase began."""
        return done / max(now_s - self._began_s, 1e-3)

    def left_s(self, done: int, total: int, now_s: float) -> float | None:
        """Seconds that are left at this rate; `None`: nothing is done yet."""
        return (total - done) / self.rate(done, now_s) if done else None


@contextmanager
def showing() -> Iterator[Tell]:
    """Show what the given function is told."""
    if sys.stderr.isatty():
        with _Bar() as bar:
            yield bar.tell
    else:
        yield Lines(sys.stderr.write, time.monotonic).tell


class _Bar:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._phase: str | None = None
        self._pace = Pace(0.0)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, phase: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if phase != self._phase or self._task is None:
            self._phase, self._pace = phase, Pace(now_s)
            self._task = self._progress.add_task(phase, total=total or None, rate="")
        rate = f"{self._pace.rate(done, now_s):,.0f}/s" if done else ""
        self._progress.update(self._task, completed=done, total=total or None, rate=rate)


class Lines:
    """Plain lines: of each phase the first step, one every few seconds, and the end."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._phase: str | None = None
        self._pace = Pace(0.0)
        self._next_s = 0.0

    def tell(self, phase: str, done: int, total: int) -> None:
        """Take note of how far it is, and say so if it is time."""
        now_s = self._clock()
        if phase != self._phase:
            self._phase, self._pace, self._next_s = phase, Pace(now_s), 0.0
        is_done = total > 0 and done == total
        if now_s < self._next_s and not is_done:
            return
        self._next_s = now_s + EVERY_S
        line = phase
        if total:
            line += f": {done:,} of {total:,}, {done / total:.0%}"
        left_s = self._pace.left_s(done, total, now_s)
        if done and left_s is not None:
            line += f", {self._pace.rate(done, now_s):,.0f}/s, {left_s:,.0f} s left"
        self._write(line + "\n")
