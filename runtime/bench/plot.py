"""A picture of a run: latency by percentile, latency over time, throughput over time. Needs the extra `plot`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from runtime.bench.errors import BenchError
from runtime.bench.report import Report

# 1 - 1/10ⁿ and what lies between, so that each nine has the same room.
PERCENTILES: Final = (0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.99, 99.995, 99.999)
TICKS: Final = (0, 50, 90, 99, 99.9, 99.99, 99.999)
COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


class PlotError(BenchError):
    """The picture cannot be drawn."""


def require_plot() -> None:
    """See that pictures can be drawn.

    Raises:
        PlotError: they cannot, for matplotlib is missing.
    """
    _matplotlib()


def plot(path: Path, title: str, reports: Sequence[Report]) -> None:
    """Draw a PNG.

    Raises:
        PlotError: matplotlib is missing, or the file cannot be written.
    """
    figure_class, locator = _matplotlib()
    figure = figure_class(figsize=(11, 12), layout="constrained")
    figure.suptitle(title)
    by_percentile, over_time, throughput = figure.subplots(3, 1)
    for report, colour in zip(reports, COLOURS * len(reports), strict=False):
        _by_percentile(by_percentile, report, colour)
        _over_time(over_time, report, colour)
        _throughput(throughput, report, colour)
    headline = reports[0].headline
    by_percentile.set(title=f"{headline}, by percentile", xlabel="percentile", ylabel="ms", yscale="log")
    by_percentile.set_xticks([_place(percent) for percent in TICKS], [f"{percent:g}" for percent in TICKS])
    over_time.set(title=f"{headline}, by when it was due", xlabel="seconds", ylabel="ms", yscale="log")
    throughput.set(title="completed operations, and deliveries", xlabel="seconds", ylabel="a second", yscale="log")
    for axes in (by_percentile, over_time, throughput):
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.yaxis.set_major_locator(locator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(lambda _value, _: "")
        if axes.lines:
            axes.legend(loc="best", fontsize="small")
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise PlotError(f"cannot write {path}: {error.strerror}") from error


def _matplotlib() -> tuple[Any, Any]:  # classes of a library that may be missing
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
    except ImportError:
        raise PlotError("--plot needs matplotlib: pip install 'riverrun[plot]'") from None
    return Figure, LogLocator


def _place(percent: float) -> float:
    """Where a percentile is on an axis on which each nine has the same room."""
    return -math.log10(1 - percent / 100)


def _by_percentile(axes: Any, report: Report, colour: str) -> None:
    if report.headline not in report.histograms:
        return
    hdr = HdrHistogram.decode(report.histograms[report.headline])
    count = hdr.get_total_count()
    # A percentile finer than one of the count is the maximum, and tells nothing more.
    told = [percent for percent in PERCENTILES if count * (1 - percent / 100) >= 1]
    values = [hdr.get_value_at_percentile(percent) / 1000 for percent in told]
    axes.plot([_place(percent) for percent in told], values, marker=".", color=colour, label=report.adapter)


def _over_time(axes: Any, report: Report, colour: str) -> None:
    drawn = [(at, second.latency_ms) for at, second in enumerate(report.series) if second.latency_ms.count]
    seconds = [at for at, _ in drawn]
    axes.plot(seconds, [ms.p50 for _, ms in drawn], color=colour, label=f"{report.adapter} p50")
    axes.plot(seconds, [ms.p99 for _, ms in drawn], color=colour, linestyle="--", label=f"{report.adapter} p99")


def _throughput(axes: Any, report: Report, colour: str) -> None:
    seconds = range(len(report.series))
    completed = [second.completed for second in report.series]
    deliveries = [second.deliveries for second in report.series]
    axes.plot(seconds, completed, color=colour, label=f"{report.adapter} completed")
    if any(deliveries):
        axes.plot(seconds, deliveries, color=colour, linestyle=":", label=f"{report.adapter} deliveries")
