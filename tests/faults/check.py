"""`python -m tests.faults.check FOLDER`: checks a recorded run (again), prints the verdict, and exits 1 if it fails.

A folder has what `recording` wrote, the log and the read models as they were when the run had ended
(`log.ndjson`, `models.json`), and what the run was about (`about.json`).
"""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tests.faults.readings import Models, check_clients, check_deliveries, check_models
from tests.faults.recording import ACCOUNTS, ATTEMPTS, DELIVERED, Attempt, Delivered, logged, read, read_log
from tests.faults.sends import check_sends
from tests.faults.verdict import COUNTS, VIOLATIONS, Verdict
from tests.soak.history import History
from tests.soak.holding import Account

ABOUT = "about.json"
MODELS = "models.json"


class About(msgspec.Struct, frozen=True):
    """What a run was about.

    Attributes:
        known: its conversations, each with the version that was there before clients came.
        planted: what `riverrun verify` is to find, because it was put there: how it begins.
    """

    case: str
    seed: int
    known: dict[str, int]
    planted: list[str] = []


def check_folder(folder: Path) -> Verdict:
    """The verdict on a recorded run.

    Raises:
        OSError, msgspec.DecodeError: the folder is not one of a run that was recorded to its end.
    """
    about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    models = msgspec.json.decode((folder / MODELS).read_bytes(), type=Models)
    history, log = History(), []
    for event in read_log(folder):
        entry = logged(event)
        if entry is not None and entry.conversation in about.known:
            history.add(event)
            log.append(entry)
    verdict = Verdict()
    check_sends(log, read(folder, ATTEMPTS, Attempt), verdict)
    check_deliveries(log, read(folder, DELIVERED, Delivered), verdict)
    check_clients(history, about.known, read(folder, ACCOUNTS, Account), verdict)
    check_models(log, models, verdict, planted=about.planted)
    return verdict


def show(verdict: Verdict) -> None:
    """Print a verdict, line by line."""
    for name in (*COUNTS, *VIOLATIONS):
        sys.stdout.write(f"{name.replace('_', ' '):24}{verdict.counts[name]:>10,}\n")
    for finding in verdict.findings:
        sys.stdout.write(f"  {finding}\n")
    sys.stdout.write("passed\n" if verdict.passed else "FAILED\n")


def main(folder: Annotated[Path, typer.Argument(help="What `make faults ARGS='--keep FOLDER'` left.")]) -> None:
    """Check recorded runs again: one, or all that are in a folder."""
    runs = [folder] if (folder / ABOUT).exists() else sorted(path.parent for path in folder.glob(f"*/{ABOUT}"))
    if not runs:
        sys.stderr.write(f"no recorded run in {folder}\n")
        raise typer.Exit(2)
    passed = True
    for run in runs:
        sys.stdout.write(f"{run.name}\n")
        verdict = check_folder(run)
        show(verdict)
        passed = passed and verdict.passed
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
