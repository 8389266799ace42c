"""A picture of an answer: the first column along, the numbers up. Needs the extra `plot`.

A time is a line, a number a line or, where there are few, bars; a text is bars, lying, the first above. A second column
of text makes a series of each of its values.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from runtime.analysis.asking import Rows

BARS_MAX: Final = 60  # more cannot be told apart
SERIES_MAX: Final = 12
STANDING_SERIES_MAX: Final = 4
STANDING_MAX: Final = 32  # numbers that are bars: hours, weekdays, days of a month

_WRAPPED: Final = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)")
_NUMBER: Final = re.compile(r"(U?Int|Float|Decimal)\d*")

Series = Mapping[str, Sequence[tuple[Any, float]]]


class ChartError(Exception):
    """The picture cannot be drawn; one plain line."""


def draw(path: Path, answer: Rows, *, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Write a PNG.

    Raises:
        ChartError: matplotlib is missing, the columns make no picture, or the file cannot be written.
    """
    figure_class = _figure()
    kind, series = series_of(answer)
    figure = figure_class(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    if kind == "lying":
        _lying(axes, series)
        x_label, y_label = y_label or _measure(answer), x_label
    elif kind == "standing":
        _standing(axes, series)
    else:
        for name, points in series.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    axes.set(title=title, xlabel=x_label, ylabel=y_label or ("" if kind == "lying" else _measure(answer)))
    axes.grid(visible=True, axis="x" if kind == "lying" else "y", alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize="small")
    try:
        figure.savefig(path, format="png", dpi=80, metadata={"Software": None})
    except OSError as error:
        raise ChartError(f"cannot write {path}: {error.strerror}") from error


def series_of(answer: Rows) -> tuple[str, Series]:
    """What is drawn: `line`, `standing` or `lying` bars, and the points of each series.

    Raises:
        ChartError: the columns make no picture.
    """
    types = [_plain(type_) for type_ in answer.types]
    if not answer.rows:
        raise ChartError("there are no rows to draw")
    numbers = [at for at, type_ in enumerate(types) if at > 0 and _NUMBER.fullmatch(type_)]
    if not numbers:
        raise ChartError("nothing to draw: after the first column one of numbers is expected")
    rows = [(_value(row[0], types[0]), row) for row in answer.rows if row[0] is not None]
    series: dict[str, list[tuple[Any, float]]] = {}
    for x, row in rows:
        for at in numbers[:1] if types[1] == "String" else numbers:
            if row[at] is not None:
                name = str(row[1]) if types[1] == "String" else answer.names[at]
                series.setdefault(name, []).append((x, float(row[at])))
    if len(series) > SERIES_MAX:
        raise ChartError(f"{len(series)} series are more than can be told apart: at most {SERIES_MAX}")
    places = len({x for x, _ in rows})
    if types[0].startswith("Date") or (_NUMBER.fullmatch(types[0]) and places > STANDING_MAX):
        return "line", series
    if places > BARS_MAX:
        raise ChartError(f"{places} bars are more than can be told apart: at most {BARS_MAX}")
    if _NUMBER.fullmatch(types[0]):
        return "standing" if len(series) <= STANDING_SERIES_MAX else "line", series
    return "lying", series


def _plain(type_: str) -> str:
    """`String` of `LowCardinality(Nullable(String))`, `DateTime64` of `DateTime64(3, 'UTC')`."""
    while wrapped := _WRAPPED.fullmatch(type_):
        type_ = wrapped[1]
    return type_.partition("(")[0]


def _value(value: Any, type_: str) -> Any:
    if type_.startswith("Date"):
        return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
    return float(value) if _NUMBER.fullmatch(type_) else str(value)


def _measure(answer: Rows) -> str:
    """The name of the numbers, where there is one column of them."""
    numbers = [name for name, type_ in zip(answer.names, answer.types, strict=True) if _NUMBER.fullmatch(_plain(type_))]
    drawn = [name for name in numbers if name != answer.names[0]]
    return drawn[0] if len(drawn) == 1 else ""


def _standing(axes: Any, series: Series) -> None:
    width = 0.8 / len(series)
    for number, (name, points) in enumerate(series.items()):
        shift = (number - (len(series) - 1) / 2) * width
        axes.bar([x + shift for x, _ in points], [y for _, y in points], width, label=name)


def _lying(axes: Any, series: Series) -> None:
    places = list(dict.fromkeys(x for points in series.values() for x, _ in points))
    height = 0.8 / len(series)
    for number, (name, points) in enumerate(series.items()):
        at = [places.index(x) + (number - (len(series) - 1) / 2) * height for x, _ in points]
        axes.barh(at, [y for _, y in points], height, label=name)
    # Not parsed as mathematics, which a `$` in somebody's name would begin.
    axes.set_yticks(range(len(places)), [place.replace("$", r"\$") for place in places], fontsize="small")
    axes.invert_yaxis()


def _figure() -> Any:  # a class of a library that may be missing
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ChartError("a chart needs matplotlib: pip install 'riverrun[plot]'") from None
    return Figure
