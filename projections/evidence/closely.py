"""A close look at a stretch of a table: which of its rows are not as they should be, and in which columns."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

from projections.evidence.findings import Finding
from projections.evidence.sketches import encoded

Placed: TypeAlias = tuple[int, Sequence[Any]]  # a row, with the position of its event


class Told(NamedTuple):
    """How rows of a table are told.

    Attributes:
        number: the column that numbers the rows of a conversation, where there is one.
    """

    store: str
    table: str
    columns: Sequence[str]
    number: str | None


def differences(told: Told, stream: str, expected: Iterable[Placed], found: Iterable[Placed]) -> Iterator[Finding]:
    """What differs between the rows that should be there and those that are, by the position of their event."""
    rows: dict[int, tuple[list[Sequence[Any]], list[Sequence[Any]]]] = defaultdict(lambda: ([], []))
    for side, placed in enumerate((expected, found)):
        for sequence, row in placed:
            rows[sequence][side].append(row)
    for sequence, (wanted, there) in sorted(rows.items()):
        for row, other in zip_longest(_without(wanted, there), _without(there, wanted)):
            yield _finding(told, stream, sequence, row, other)


def _without(rows: Sequence[Sequence[Any]], others: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """What is left of rows when those that are equal are taken away, one for one; in an order of its own."""
    equal = Counter(map(encoded, others))
    left = []
    for key, row in sorted(((encoded(row), row) for row in rows), key=lambda pair: pair[0]):
        if equal[key]:
            equal[key] -= 1
        else:
            left.append(row)
    return left


def _finding(told: Told, stream: str, sequence: int, row: Sequence[Any] | None, other: Sequence[Any] | None) -> Finding:
    if row is None:
        what = "there is a row that no event made"
    elif other is None:
        what = "its row is missing"
    else:
        cells = zip(told.columns, row, other, strict=True)
        names = [name for name, should_be, is_ in cells if encoded(should_be) != encoded(is_)]
        what = f"its {', '.join(names)} is not what the event says"
    named = dict(zip(told.columns, row or other or (), strict=False))
    id_ = named.get("conversation_id")
    number = f"{told.number} {named[told.number]}" if told.number in named else ""
    if not number and "user_id" in named:
        number = f"user {named['user_id']}"
    return Finding(told.store, told.table, stream, sequence, what, id_ if isinstance(id_, int) else None, number)
