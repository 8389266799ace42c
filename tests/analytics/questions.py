"""The worked questions: `docs/analytics/NN-name.sql`, each with its question and a word about it as comments above."""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "docs" / "analytics"


class Question(NamedTuple):
    """One of them."""

    name: str
    question: str
    remark: str
    sql: str


def questions() -> list[Question]:
    """All, in their order."""
    return [_read(path) for path in sorted(FOLDER.glob("*.sql"))]


def _read(path: Path) -> Question:
    lines = path.read_text(encoding="utf-8").splitlines()
    above = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    sql = "\n".join(line for line in lines if not line.startswith("-- "))
    return Question(path.stem, above[0], " ".join(above[1:]), sql)
