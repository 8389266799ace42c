"""Servers side by side in one run: their rounds are interleaved, so that what the machine does meanwhile falls on all.

A ratio is that of two rounds next to each other. The median of all rounds' ratios is what is told, with the least and
the greatest, which say how much of it is noise.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.bench.outcome import Outcome
from runtime.bench.report import Report
from runtime.bench.running import Prepared


@dataclass(frozen=True, slots=True)
class Ratio:
    """One server's figure over another's."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.greatest:.2f})"


def interleaved(servers: Sequence[Prepared], rounds: int) -> Iterator[tuple[int, Prepared, Outcome]]:
    """Rounds of all servers; who begins changes from round to round.

    Raises:
        BenchError, ClientError: a round failed.
    """
    for number in range(rounds):
        first = number % len(servers)
        for server in (*servers[first:], *servers[:first]):
            yield number, server, server.round()


def ratios(mine: Sequence[Report], others: Sequence[Report]) -> Mapping[str, Ratio]:
    """Figures of one server over another's, round by round; only those that both have.

    Args:
        mine: by round; `others`: the same rounds of the other.
    """
    found: dict[str, list[float]] = {}
    for one, other in zip(mine, others, strict=True):
        for name, value in _figures(one).items():
            if value and (base := _figures(other).get(name)):
                found.setdefault(name, []).append(value / base)
    return {name: Ratio(statistics.median(of), min(of), max(of)) for name, of in found.items()}


def _figures(report: Report) -> dict[str, float]:
    """What is compared, by its name in the table."""
    figures = {"completed/s": report.completed_per_s, "deliveries/s": report.deliveries_per_s}
    for measure, latency in report.latency_ms.items():
        figures[f"{measure}, p50"] = latency.p50
        figures[f"{measure}, p99"] = latency.p99
    return figures
