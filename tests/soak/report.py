"""What a soak prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from tests.soak.checker import Verdict
from tests.soak.memory import Growth
from tests.soak.tally import Outage, Tally

KILL_SEEN_S = 3.0  # within which all clients of a killed gateway know


@dataclass(frozen=True, slots=True)
class Kill:
    """A gateway was killed. Seconds of the machine's monotonic clock."""

    gateway: int
    at_s: float


class CatchUp(msgspec.Struct, frozen=True):
    """After one kill: how many clients lost their session by it, and how long until each was current again."""

    gateway: int
    clients: int
    unfinished: int
    median_s: float
    max_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a soak.

    Attributes:
        events: in the log.
        reset: reconnects that were not recovered; `spoilt` of them came with a cursor that was cut on purpose.
        growth: of each process that lived long enough to say.
        catch_up_s: the longest of all kills, and the median over them of the longest.
    """

    clients: int
    conversations: int
    events: int
    posted: int
    acked: int
    deliveries: int
    reconnects: int
    recovered: int
    reset: int
    spoilt: int
    pulled: int
    kills: int
    lost: int
    doubled: int
    wrong: int
    catch_up_max_s: float
    catch_up_median_s: float
    seconds: float
    growth: list[Growth]
    passed: bool


def catch_ups(kills: Sequence[Kill], outages: Sequence[Outage]) -> list[CatchUp]:
    """For each kill, from then until every client that lost its session by it had all that it missed."""
    found = []
    for kill in kills:
        hit = [o for o in outages if o.gateway == kill.gateway and 0 <= o.lost_s - kill.at_s < KILL_SEEN_S]
        taken = sorted(o.current_s - kill.at_s for o in hit if o.current_s is not None)
        found.append(
            CatchUp(
                gateway=kill.gateway,
                clients=len(hit),
                unfinished=len(hit) - len(taken),
                median_s=round(median(taken), 2) if taken else 0,
                max_s=round(max(taken), 2) if taken else 0,
            )
        )
    return found


def show(report: Report, catch_up: Sequence[CatchUp], verdict: Verdict, tally: Tally) -> None:
    """Print it: a table, what went wrong, and one line of JSON."""
    console = Console()
    table = Table("soak", "", title="What the clients saw")
    for name, value in msgspec.to_builtins(report).items():
        if name == "growth":
            continue
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value))
    console.print(table)
    kills = Table("killed", "clients", "current again: median s", "last s", title="Catch-up after each kill")
    for one in catch_up:
        last = f"{one.max_s:g}" + (f" ({one.unfinished} never)" if one.unfinished else "")
        kills.add_row(f"gateway {one.gateway}", f"{one.clients:,}", f"{one.median_s:g}", last)
    console.print(kills)
    memory = Table("process", "RSS at first", "at last", "slope, KiB/min", title="Memory")
    for grown in report.growth:
        memory.add_row(grown.name, f"{grown.first_kib:,}", f"{grown.last_kib:,}", f"{grown.slope_kib_min:+,.0f}")
    console.print(memory)
    for what, count in sorted(tally.errors.items()):
        console.print(f"{count:>8,}  {what}", highlight=False)
    for finding in [*verdict.findings, *tally.notes]:
        console.print(finding, highlight=False, style="red")
    console.print(msgspec.json.encode(report).decode(), highlight=False, soft_wrap=True)
