"""A proof's report: a table, or JSON."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.proof.outcome import Outcome

COLD_MOST: Final = 0.25  # of the warm tier's bytes a message
TIERS: Final = ("log", "hot", "warm", "cold")


def sizes(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Bytes a message in each tier, as far as they were measured."""
    found = {name: value for outcome in outcomes for name, value in outcome.numbers.items()}
    return {tier: round(found[f"{tier} bytes"], 1) for tier in TIERS if f"{tier} bytes" in found}


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether there is no difference."""
    return not any(outcome.fault_count for outcome in outcomes)


def as_dict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The JSON form."""
    return {
        "steps": [outcome.as_dict() for outcome in outcomes],
        "bytes_a_message": sizes(outcomes),
        "passed": passed(outcomes),
    }


def show(outcomes: Sequence[Outcome]) -> None:
    """The table, on stdout."""
    console = Console(soft_wrap=True)
    table = Table()
    for heading in ("step", "seconds", "done", "rate", "verdict", "note"):
        table.add_column(heading, justify="right" if heading in ("seconds", "done", "rate") else "left")
    for one in outcomes:
        rate = f"{one.count / one.seconds:,.0f}/s" if one.seconds else ""
        verdict = "equal" if not one.fault_count else f"{one.fault_count:,} faults"
        table.add_row(one.step, f"{one.seconds:,.1f}", f"{one.count:,} {one.unit}", rate, verdict, one.note)
    console.print(table)
    found = sizes(outcomes)
    console.print("bytes a message: " + ", ".join(f"{tier} {size:,.1f}" for tier, size in found.items()))
    if found.get("warm") and found.get("cold"):
        ratio = found["cold"] / found["warm"]
        console.print(f"cold is {ratio:.2f} of warm: {'met' if ratio <= COLD_MOST else 'missed'}, at most {COLD_MOST}")
    for outcome in outcomes:
        for name, value in outcome.numbers.items():
            if name.endswith("ms"):
                console.print(f"{outcome.step}, {name}: {value:,.1f}", highlight=False)
    for outcome in outcomes:
        for fault in outcome.faults:
            console.print(f"{outcome.step}: {fault}", markup=False, highlight=False)
    console.print("passed" if passed(outcomes) else "FAILED", highlight=False)
