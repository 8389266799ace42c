"""`python -m tests.faults` (`make faults`): the long form. Exit status 1 when anything is not as it should be."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from runtime import logs
from runtime.cluster import PARTITIONS_MIN
from tests.faults.course import planned
from tests.faults.disks import CannotMount
from tests.faults.matrix import run
from tests.faults.report import as_dict, show
from tests.faults.schedule import CASES

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@app.command()
def main(
    *,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
    only: Annotated[str, typer.Option(help="Cases, with commas between; all without it.")] = "",
    scale: Annotated[float, typer.Option(help="1 is the long form; less: fewer rounds, shorter outages.")] = 1.0,
    rate: Annotated[float, typer.Option(help="Messages a second.")] = 250.0,
    keep: Annotated[Path | None, typer.Option(help="Keep recordings and logs there, to be checked again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Inject faults into a cluster under load, and account for every message."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        sys.stderr.write(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}\n")
        raise typer.Exit(2)
    cases = [CASES[name] for name in names]
    logs.configure(level="critical", form="text")  # that processes end and are started again is no news here
    for name, steps in planned(cases, seed=seed, scale=scale, partitions=PARTITIONS_MIN).items():
        _say(f"seed {seed}, {name}: {'; '.join(map(str, steps))}")
    with tempfile.TemporaryDirectory(prefix="riverrun-faults-", ignore_cleanup_errors=True) as folder:
        recordings = Path(folder) / "recordings"
        try:
            results = uvloop.run(run(cases, Path(folder), recordings, seed=seed, scale=scale, rate=rate, say=_say))
        except CannotMount as error:
            sys.stderr.write(f"cannot inject all faults here: {error}\n")
            raise typer.Exit(2) from None
        finally:
            if keep is not None and recordings.exists():
                shutil.copytree(recordings, keep, dirs_exist_ok=True)
    if as_json:
        sys.stdout.write(json.dumps(as_dict(results)) + "\n")
    else:
        show(results)
    passed = all(result.verdict.passed for result in results)
    if not passed:
        sys.stderr.write(f"repeat with: make faults ARGS='--seed {seed} --only {','.join(names)} --scale {scale:g}'\n")
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    app()
