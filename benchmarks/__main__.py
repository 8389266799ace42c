"""`python -m benchmarks`: every benchmark on a deployment of its own, printed and kept as JSON."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    archive,
    connections,
    delivery,
    durable_sends,
    fanout,
    flat_cost,
    history,
    inbox,
    large_group,
    presence,
    rebuild,
    replay,
    single_send,
    storm,
    sync,
)
from benchmarks.deployment import deployed
from benchmarks.report import Pace, save, show

BENCHMARKS = {
    "sends": durable_sends.run,
    "single": single_send.run,
    "delivery": delivery.run,
    "fanout": fanout.run,
    "large-group": large_group.run,
    "connections": connections.run,
    "storm": storm.run,
    "presence": presence.run,
    "inbox": inbox.run,
    "sync": sync.run,
    "history": history.run,
    "replay": replay.run,
    "rebuild": rebuild.run,
    "archive": archive.run,
}
FLAT = "flat"  # takes minutes, most of them to write a history: only when asked for
FULL = Pace(seconds=15, warmup_s=3)
QUICK = Pace(seconds=3, warmup_s=1)


def main(
    *,
    only: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)}, {FLAT}; may be repeated.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="About two minutes; for a look, not for the record.")] = False,
    messages: Annotated[
        int, typer.Option(help=f"Of the longest history that `{FLAT}` writes.", min=10_000)
    ] = 1_000_000,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks/results/latest.json"),
) -> None:
    """Run the benchmarks, each beside its floor, about seven minutes in all; `flat` only when it is asked for."""
    chosen = only or list(BENCHMARKS)
    unknown = set(chosen) - {*BENCHMARKS, FLAT}
    if unknown:
        raise typer.BadParameter(f"there is no benchmark {', '.join(sorted(unknown))}")
    progress = Console(stderr=True)
    figures = []
    # Replay reads what the sends have written, so they share one deployment.
    with deployed() as deployment:
        for name, benchmark in BENCHMARKS.items():
            if name in chosen:
                progress.print(f"{name} …", highlight=False)
                figures.append(benchmark(deployment, QUICK if quick else FULL))
        if FLAT in chosen:
            progress.print(f"{FLAT} …", highlight=False)
            figures += flat_cost.run(deployment, QUICK if quick else FULL, messages=messages)
    show(figures)
    save(figures, output)


if __name__ == "__main__":
    typer.run(main)
