"""The figures as tables that people can read."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.bench.comparison import Ratio
from runtime.bench.histogram import Percentiles
from runtime.bench.report import Report


def show(console: Console, title: str, reports: Sequence[Report], parameters: Mapping[str, Any]) -> None:
    """Print the figures of one or more servers, side by side."""
    console.print(_figures(title, reports, parameters))
    if any(report.latency_ms for report in reports):
        console.print(_latencies(reports))
    for report in reports:
        for remark in report.remarks:
            console.print(f"{report.adapter}: {remark}", style="yellow", highlight=False, soft_wrap=True)


def show_machine(console: Console, machine: Mapping[str, str]) -> None:
    """Print what it was measured on."""
    table = Table("machine", "")
    for key, value in machine.items():
        table.add_row(key, value)
    console.print(table)


def show_ratios(console: Console, base: str, ratios: Mapping[str, Mapping[str, Ratio]]) -> None:
    """Print how one server compares with each of the others.

    Args:
        ratios: by the other's name, by figure.
    """
    table = Table("", *(f"{base} / {other}" for other in ratios), title="ratios: median of the rounds (least-greatest)")
    for name in dict.fromkeys(name for of in ratios.values() for name in of):
        table.add_row(name, *(str(of[name]) if name in of else "" for of in ratios.values()))
    console.print(table)


def _figures(title: str, reports: Sequence[Report], parameters: Mapping[str, Any]) -> Table:
    table = Table("", *(report.adapter for report in reports), title=title)
    for key, value in parameters.items():
        if value is not None:
            table.add_row(key.replace("_", " "), *([str(value)] * len(reports)))
    table.add_section()
    rows = [_rows(report) for report in reports]
    for name in dict.fromkeys(name for row in rows for name in row):
        table.add_row(name, *(row.get(name, "") for row in rows))
    return table


def _rows(report: Report) -> dict[str, str]:
    rows = {
        "server": " ".join(next(iter(report.server.items()), ("?",))),
        "an ack means": report.ack,
        "sessions": f"{report.sessions:,}",
    }
    if report.memory_kib_per_session:
        rows["memory a session"] = _each(report.memory_kib_per_session, "{:,.1f} KiB")
    if report.due:
        rows["due"] = f"{report.due:,}" + ("" if report.rate is None else f" ({report.rate:,g}/s)")
        rows["completed/s"] = f"{report.completed_per_s:,.1f}"
        if len(report.completed) > 1:
            rows["of which"] = ", ".join(f"{op} {count:,}" for op, count in sorted(report.completed.items()))
        rows["deliveries/s"] = f"{report.deliveries_per_s:,.1f}"
        rows["missed, doubled, out of turn"] = f"{report.missed:,}, {report.doubled:,}, {report.disordered:,}"
    if report.errors:
        rows["errors"] = ", ".join(f"{name} {count:,}" for name, count in sorted(report.errors.items()))
    if report.unanswered or report.not_begun:
        rows["unanswered, not begun"] = f"{report.unanswered:,}, {report.not_begun:,}"
    if report.server_cores:
        rows["server, cores"] = _each(report.server_cores, "{:.2f}")
    rows["load generator, cores"] = ", ".join(f"{cores:.2f}" for cores in report.generator_cores)
    if report.lateness_ms.count:
        rows["its lateness"] = f"p50 {report.lateness_ms.p50:,.2f} ms, p99 {report.lateness_ms.p99:,.2f} ms"
    return rows


def _each(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def _latencies(reports: Sequence[Report]) -> Table:
    table = Table("ms, from when it was due", "", "count", "mean", "p50", "p90", "p99", "p99.9", "max")
    for measure in dict.fromkeys(measure for report in reports for measure in report.latency_ms):
        for report in reports:
            if measure in report.latency_ms:
                table.add_row(measure, report.adapter, *_cells(report.latency_ms[measure]))
        table.add_section()
    return table


def _cells(latency: Percentiles) -> list[str]:
    of = (latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max)
    return [f"{latency.count:,}", *(f"{value:,.2f}" for value in of)]
