"""Pictures: which columns make which, what cannot be drawn, and that a PNG comes out."""

import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.analysis.asking import Rows
from runtime.analysis.chart import ChartError, draw, series_of
from tests.running import Running

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("types", "rows", "kind", "series"),
    [
        (["Date", "UInt64"], [["2026-01-02", "3"]], "line", {"b": [(datetime(2026, 1, 2, tzinfo=UTC), 3.0)]}),
        (["DateTime64(3, 'UTC')", "Float64"], [["2026-01-02 03:04:05.006", 1.5]], "line", None),
        (
            ["UInt8", "UInt64", "UInt64"],
            [[1, "3", "4"], [2, None, "5"]],
            "standing",
            {"b": [(1, 3)], "c": [(1, 4), (2, 5)]},
        ),
        (["Int64", "UInt64"], [[n, n] for n in range(40)], "line", None),
        (["UInt8", "String", "UInt64"], [[1, str(n), n] for n in range(5)], "line", None),
        (["LowCardinality(Nullable(String))", "UInt64"], [["x", "3"], [None, "4"]], "lying", {"b": [("x", 3)]}),
        (["UInt8", "String", "UInt64"], [[1, "x", 2], [1, "y", 3]], "standing", {"x": [(1, 2)], "y": [(1, 3)]}),
    ],
)
def test_the_columns_make_the_picture(
    types: list[str], rows: list[list[object]], kind: str, series: dict[str, object] | None, tmp_path: Path
) -> None:
    answer = Rows(["a", "b", "c"][: len(types)], types, rows)
    found, points = series_of(answer)
    assert found == kind
    assert series is None or points == series
    draw(tmp_path / "x.png", answer, title="A title", x_label="along", y_label="up")
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("types", "rows", "words"),
    [
        (["String", "UInt64"], [], "no rows"),
        (["String"], [["x"]], "numbers"),
        (["UInt64"], [["1"]], "numbers"),
        (["String", "String"], [["x", "y"]], "numbers"),
        (["String", "UInt64"], [[str(n), n] for n in range(61)], "61 bars"),
        (["UInt8", "String", "UInt64"], [[1, str(n), n] for n in range(13)], "13 series"),
    ],
)
def test_what_makes_no_picture_is_told_in_a_line(types: list[str], rows: list[list[object]], words: str) -> None:
    with pytest.raises(ChartError, match=words):
        series_of(Rows(["a", "b", "c"][: len(types)], types, rows))


def test_a_name_with_dollars_is_no_mathematics(tmp_path: Path) -> None:
    draw(tmp_path / "x.png", Rows(["who", "n"], ["String", "UInt64"], [["$_^{$", "1"], ["$\\frac$", "2"]]))


async def test_the_command_draws_and_says_why_it_does_not(running: Running, tmp_path: Path) -> None:
    async def chart(statement: str) -> tuple[int | None, str]:
        command = (sys.executable, "-m", "runtime.cli", "chart", str(tmp_path / "x.png"), statement)
        process = await create_subprocess_exec(*command, "--data-dir", str(running.data_dir), stdout=PIPE, stderr=PIPE)
        _, said = await process.communicate()
        return process.returncode, said.decode()

    assert await chart("SELECT number, number * number AS square FROM numbers(10)") == (0, "")
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)
    status, said = await chart("SELECT nonsense")
    assert (status, said.count("\n")) == (1, 1)
    assert "nonsense" in said
    assert await chart("SELECT 1 WHERE 0") == (2, "riverrun: there are no rows to draw\n")
