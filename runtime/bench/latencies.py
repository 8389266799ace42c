"""Latencies, and the percentiles of them."""

from collections.abc import Iterable

import msgspec


class Latencies(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds of `count` measurements; zeros when there are none."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


def latencies(seconds: Iterable[float]) -> Latencies:
    """The percentiles, by nearest rank: each is one of the measured values."""
    ordered = sorted(seconds)
    if not ordered:
        return Latencies(0, 0.0, 0.0, 0.0, 0.0)

    def rank(percent: int) -> float:
        return round(ordered[-(-percent * len(ordered) // 100) - 1] * 1000, 3)

    return Latencies(len(ordered), rank(50), rank(90), rank(99), round(ordered[-1] * 1000, 3))
