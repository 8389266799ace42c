"""What a benchmark says, and how all of them are printed and kept."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from runtime.bench.histogram import Percentiles
from runtime.bench.machine import machine


class Pace(msgspec.Struct, frozen=True):
    """How long to measure each thing, after how long a warm-up."""

    seconds: float
    warmup_s: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark's result.

    Attributes:
        unit: of `measured` and `floor`.
        floor: the same measured raw on the same servers in the same run; `None` where there is none.
        target: what is asked for, in words.
        met: whether that was reached.
        notes: what else a reader needs to judge the figure.
    """

    name: str
    unit: str
    measured: float
    floor: float | None
    target: str
    met: bool
    latency_ms: Percentiles | None = None
    notes: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over floor."""
        return self.measured / self.floor if self.floor else None


def show(figures: Sequence[Figure]) -> None:
    """Print machine, versions and figures."""
    console = Console()
    about = Table("machine", "", title=f"make bench, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    for key, value in machine().items():
        about.add_row(key, value)
    console.print(about)
    table = Table("benchmark", "measured", "floor", "ratio", "target", "", "p50 ms", "p99 ms")
    for figure in figures:
        latency = figure.latency_ms
        table.add_row(
            figure.name,
            f"{figure.measured:,.6g} {figure.unit}",
            "" if figure.floor is None else f"{figure.floor:,.6g}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.target,
            "met" if figure.met else "MISSED",
            "" if latency is None else f"{latency.p50:g}",
            "" if latency is None else f"{latency.p99:g}",
        )
    console.print(table)
    for figure in figures:
        if figure.notes:
            console.print(f"{figure.name}: {figure.notes}", highlight=False)


def save(figures: Sequence[Figure], path: Path) -> None:
    """Keep the figures as JSON."""
    whole = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": [{**msgspec.to_builtins(figure), "ratio": figure.ratio} for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n")
