"""The table of a run of the matrix, and its total."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.course import Result
from tests.faults.verdict import total

WIDTH = 140  # also where the output is a file
COLUMNS = (
    "acked",
    "unknown",
    "unavailable for",
    "again after",
    "lost",
    "doubled",
    "holes",
    "out of order",
    "differs",
    "verdict",
)


def show(results: Sequence[Result]) -> None:
    """Print one row a case, and a row of sums."""
    console = Console(file=sys.stdout, soft_wrap=True, width=WIDTH)
    table = Table()
    table.add_column("case")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(result.case, *_row(result))
    if len(results) > 1:
        whole = total([result.verdict for result in results])
        worst_s = max(result.unavailable_s for result in results)
        table.add_section()
        seconds = sum(result.seconds for result in results)
        worst_again_s = max(result.again_s for result in results)
        table.add_row(f"all, {seconds:,.0f} s", *_row(Result("", 0, whole, seconds, worst_s, worst_again_s, 0)))
    console.print(table)
    for result in results:
        for finding in result.verdict.findings:
            console.print(f"{result.case}, seed {result.seed}: {finding}", markup=False, highlight=False)


def as_dict(results: Sequence[Result]) -> dict[str, Any]:
    """The JSON form."""
    whole = total([result.verdict for result in results])
    return {**whole.as_dict(), "cases": [result.as_dict() for result in results]}


def _row(result: Result) -> list[str]:
    verdict = result.verdict
    counts = verdict.counts
    unknown = counts["unknown_then_present"] + counts["unknown_then_absent"]
    differs = sum(
        counts[name]
        for name in (
            *("acked_otherwise", "altered", "refused_then_present", "never_attempted"),
            *("delivered_not_in_log", "clients_differ", "models_differ"),
        )
    )
    return [
        f"{counts['acked']:,}",
        f"{unknown:,}",
        f"{result.unavailable_s:.1f} s",
        f"{result.again_s:.1f} s",
        f"{verdict.lost:,}",
        f"{counts['doubled']:,}",
        f"{verdict.holes:,}",
        f"{counts['out_of_order']:,}",
        f"{differs:,}",
        "passed" if verdict.passed else "FAILED",
    ]
