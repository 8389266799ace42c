"""Percentiles of latencies."""

from runtime.bench.latencies import Latencies, latencies


def test_percentiles_are_measured_values_in_milliseconds() -> None:
    assert latencies(n / 1000 for n in range(100, 0, -1)) == Latencies(count=100, p50=50, p90=90, p99=99, max=100)


def test_of_one_value_every_percentile_is_that_value() -> None:
    assert latencies([0.0025]) == Latencies(count=1, p50=2.5, p90=2.5, p99=2.5, max=2.5)


def test_of_nothing_all_are_zero() -> None:
    assert latencies([]) == Latencies(count=0, p50=0, p90=0, p99=0, max=0)
