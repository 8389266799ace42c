"""Latencies as HDR histograms: three significant digits from a microsecond to an hour, added up without loss.

`record_value` of the library costs 8 µs, too much beside 100,000 deliveries a second; a count in a dict by the
histogram's own buckets costs a twentieth of that. So a run counts in dicts, which are small, are sent between
processes and added; the library's histogram is filled from one of them afterwards, for percentiles and encoding.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from hdrh.histogram import HdrHistogram

DIGITS: Final = 3
MAX_US: Final = 3_600_000_000
_BITS: Final = 11  # of 2,048 sub-buckets, which is what three digits take


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of `count` latencies, in milliseconds; zeros when there are none."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Histogram:
    """A histogram of latencies in microseconds.

    Attributes:
        counts: by the lowest value of the bucket.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: dict[int, int] = counts or {}

    def record(self, latency_us: int) -> None:
        """Count one."""
        shift = latency_us.bit_length() - _BITS
        if shift > 0:
            latency_us = latency_us >> shift << shift
        counts = self.counts
        counts[latency_us] = counts.get(latency_us, 0) + 1

    def add(self, other: "Histogram") -> None:
        """Count all that another has."""
        for latency_us, count in other.counts.items():
            self.counts[latency_us] = self.counts.get(latency_us, 0) + count

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def filled(self) -> HdrHistogram:
        """The library's histogram."""
        hdr = HdrHistogram(1, MAX_US, DIGITS)
        for latency_us, count in self.counts.items():
            hdr.record_value(min(max(latency_us, 1), MAX_US), count)
        return hdr

    def percentiles_ms(self, percents: Iterable[float]) -> list[float]:
        """Those percentiles, in milliseconds."""
        found: dict[float, int] = self.filled().get_percentile_to_value_dict(list(percents))
        return [value / 1000 for value in found.values()]

    def percentiles(self) -> Percentiles:
        """The usual ones."""
        if not self.counts:
            return Percentiles(count=0, mean=0, p50=0, p90=0, p99=0, p999=0, max=0)
        hdr = self.filled()
        at = {percent: value / 1000 for percent, value in hdr.get_percentile_to_value_dict([50, 90, 99, 99.9]).items()}
        return Percentiles(
            count=hdr.get_total_count(),
            mean=round(hdr.get_mean_value() / 1000, 3),
            p50=at[50],
            p90=at[90],
            p99=at[99],
            p999=at[99.9],
            max=hdr.get_max_value() / 1000,
        )

    def encoded(self) -> str:
        """In the HdrHistogram V2 format, compressed, base64: what every HDR tool reads. Values are microseconds."""
        return str(self.filled().encode().decode())


def percentiles(seconds: Iterable[float]) -> Percentiles:
    """Of latencies that were measured in seconds, to the microsecond."""
    histogram = Histogram()
    for latency_s in seconds:
        histogram.record(round(latency_s * 1e6))
    return histogram.percentiles()
