"""`python -m tests.soak` (`make soak`): the long form. Exit status 1 when anything is not as it should be."""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tests.soak.course import soak
from tests.soak.population import Plan
from tests.soak.report import show

SAY_EVERY_S = 10.0  # into a file; on a terminal the line is written over

_PLAN = Plan()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Progress:
    """A line on stderr."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._said_s = 0.0

    def __call__(self, text: str) -> None:
        now_s = time.monotonic()
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{text}")
        elif now_s - self._said_s >= SAY_EVERY_S or not text[:1].isspace():
            if text.startswith("made") and now_s - self._said_s < SAY_EVERY_S:
                return
            self._said_s = now_s
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._tty:
            sys.stderr.write("\n")


@app.command()
def main(
    *,
    seconds: Annotated[float, typer.Option(help="How long to post and to kill.")] = _PLAN.seconds,
    clients: Annotated[int, typer.Option(help="WebSocket clients.")] = _PLAN.clients,
    conversations: Annotated[int, typer.Option(help="Conversations, of mixed sizes.")] = _PLAN.conversations,
    largest: Annotated[int, typer.Option(help="Members of the largest.")] = _PLAN.largest,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = _PLAN.seed,
    rate: Annotated[float, typer.Option(help="Messages a second, in all.")] = _PLAN.rate,
    kill_every: Annotated[float, typer.Option(help="Seconds between two kills.")] = _PLAN.kill_every_s,
    stay: Annotated[float, typer.Option(help="Seconds a client stays connected, on average.")] = _PLAN.stay_s,
    keep: Annotated[Path | None, typer.Option(help="Put the processes' logs there.")] = None,
) -> None:
    """Clients on a deployment whose gateways are killed in turn, and whose Valkey is flushed; then hold them against
    the log."""
    plan = Plan(
        seconds=seconds,
        clients=clients,
        conversations=conversations,
        largest=largest,
        seed=seed,
        rate=rate,
        kill_every_s=kill_every,
        stay_s=stay,
    )
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="riverrun-soak-", ignore_cleanup_errors=True) as folder:
        try:
            report, catch_up, verdict, tally = uvloop.run(soak(plan, Path(folder), progress))
        finally:
            progress.end()
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*.log"):
                    shutil.copy(log, keep)
    show(report, catch_up, verdict, tally)
    raise typer.Exit(0 if report.passed else 1)


if __name__ == "__main__":
    app()
