"""`python -m tests.proof` (`make proof`): the long form. Exit status 1 when anything is not as it should be."""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from runtime import logs
from streams.ports import LogError
from tests.proof.bars import Bars
from tests.proof.course import STEPS, CannotRun, Proof, Wanted
from tests.proof.report import as_dict, passed, show
from tests.proof.source import SHARED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    messages: Annotated[int, typer.Option(help="How many, of all the months.")] = 5_000_000,
    irc: Annotated[Path | None, typer.Option(help="A folder of IRC logs; without it an invented chat.")] = None,
    months: Annotated[int, typer.Option(help="Over how many months of 30 days they are spread; they end today.")] = 9,
    partitions: Annotated[int, typer.Option(help="Of the log.")] = 2,
    pages: Annotated[int, typer.Option(help="Of the random walk.")] = 10_000,
    kills: Annotated[int, typer.Option(help="kill -9 while archiving and while moving, in all.")] = 30,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
    until: Annotated[str, typer.Option(help=f"The last step: {', '.join(STEPS)}.")] = "",
    without: Annotated[str, typer.Option(help="Steps that are left out, with commas between.")] = "",
    keep: Annotated[Path | None, typer.Option(help="The folder, kept; given again, the proof goes on in it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """A real chat multiplied over months, through all tiers: nothing lost or doubled, every page as it was told."""
    left_out = frozenset(name.strip() for name in without.split(",") if name.strip())
    if unknown := sorted({*left_out, *([until] if until else [])} - {*STEPS}):
        sys.stderr.write(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}\n")
        raise typer.Exit(2)
    folder = irc or (SHARED if SHARED.is_dir() else None)
    wanted = Wanted(messages, folder, months, partitions, seed, pages, kills, until, left_out)
    logs.configure(level="critical", form="text")  # that processes end and are started again is no news here
    logging.disable()
    of = f"the chat in {folder}" if folder else "an invented chat"
    sys.stderr.write(f"{messages:,} messages of {of}; it takes up to {wanted.needed_bytes / 1e9:,.1f} GB of disk\n")
    with tempfile.TemporaryDirectory(prefix="riverrun-proof-", ignore_cleanup_errors=True) as temporary:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        try:
            proof = Proof(wanted, (keep or Path(temporary)).absolute(), Bars())
            outcomes = uvloop.run(proof.run())
        except (CannotRun, LogError, OSError) as error:
            again = f"; go on with --keep {keep}" if keep else ""
            sys.stderr.write(f"cannot run: {error}{again}\n")
            raise typer.Exit(2) from None
    if as_json:
        sys.stdout.write(json.dumps(as_dict(outcomes)) + "\n")
    else:
        show(outcomes)
    raise typer.Exit(0 if passed(outcomes) else 1)


if __name__ == "__main__":
    app()
