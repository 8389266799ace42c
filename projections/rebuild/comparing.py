"""A draft held against what is in force, both at the same place in the log: row digests by conversation and by user.

The database makes the digests, so that what comes here is one line a key. Of `messages` and `changes` what stayed of
months that have left is not compared: it depends on when they left (`riverrun verify` compares all of it).
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table

from projections.catalogue import CATALOGUE
from projections.differences import Difference
from projections.digests import Digest, select_digests
from projections.projection import Connection
from projections.rebuild.draft import HISTORIES
from projections.tiers.months import MOMENT
from streams import subjects

NAMED_MAX: Final = 100
KEYS: Final = {subjects.CONV: "conversation_id", subjects.USER: "user_id"}

_COLUMNS: Final = """
    SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
_MOVED: Final = "SELECT DISTINCT month_start, month_end FROM tier_moves WHERE model = %s"
_ROWS_A_FETCH: Final = 5_000


@dataclass(slots=True)
class Comparison:
    """One table, in force and in the draft.

    Attributes:
        family: of conversations or of users. key_count: how many of them were compared. rows: in the draft.
        different: of how many keys the rows are not the same. differences: the first of them.
        columns: that only one of the two has, and that were left out.
    """

    table: str
    family: str
    key_count: int = 0
    rows: int = 0
    different: int = 0
    differences: list[Difference] = field(default_factory=list)
    columns: Sequence[str] = ()

    @property
    def keys(self) -> str:
        """What is counted: `conversations` or `users`."""
        return "users" if self.family == subjects.USER else "conversations"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            self.keys: self.key_count,
            "rows": self.rows,
            "different": self.different,
            "columns_not_compared": list(self.columns),
        }


async def compare(
    live: Connection,
    draft: Connection,
    names: Sequence[str],
    *,
    keys: dict[str, Collection[int | str]] | None = None,
    named_max: int = NAMED_MAX,
) -> list[Comparison]:
    """Compare the tables of some projections.

    Args:
        live: sees what is in force as of one moment (`positions.as_of_now`).
        draft: of the draft, which is at the same place in the log, and which nobody writes to.
        keys: by family, to compare these only.
        named_max: differences of a table that are named; all are counted.
    """
    found = []
    async with draft.transaction():
        for name in names:
            family = CATALOGUE[name].family
            for table in CATALOGUE[name].tables:
                wanted = None if keys is None else list(keys.get(family, ()))
                comparison = Comparison(table.name, family)
                await _compare(live, draft, table, wanted, comparison, named_max=named_max)
                found.append(comparison)
    return found


async def _compare(
    live: Connection,
    draft: Connection,
    table: Table,
    wanted: Sequence[int | str] | None,
    comparison: Comparison,
    *,
    named_max: int,
) -> None:
    key = KEYS[comparison.family]
    there = {name for (name,) in await (await live.execute(_COLUMNS, (table.name,))).fetchall()}
    ours = table.columns.keys()
    comparison.columns = sorted(there.symmetric_difference(ours)) if there else ()
    if wanted is not None and not wanted:
        return
    conditions = ["true"] if wanted is None else [f"{key} = ANY(%(keys)s)"]
    if table in HISTORIES:
        conditions += await _unmoved(live, table)
    columns = [column for column in ours if column in there] if there else ours
    statement = select_digests(table.name, key, columns, where=" AND ".join(conditions))
    values = {"keys": wanted} if wanted is not None else {}
    before = _digests(live, statement, values) if there else _nothing()
    async for id_, old, new in _paired(before, _digests(draft, statement, values)):
        comparison.key_count += 1
        comparison.rows += new.count
        if old != new:
            comparison.different += 1
            if len(comparison.differences) < named_max:
                comparison.differences.append(_difference(table.name, id_, old, new))


async def _unmoved(live: Connection, table: Table) -> list[str]:
    moment = MOMENT[table.name]
    cursor = await live.execute(_MOVED, (table.name,))
    return [
        f"NOT ({moment} >= '{start.isoformat()}' AND {moment} < '{end.isoformat()}')"
        for start, end in await cursor.fetchall()
    ]


Digests = AsyncIterator[tuple[Any, Digest]]


async def _digests(connection: Connection, statement: str, values: dict[str, Any]) -> Digests:
    async with connection.cursor("digests") as cursor:
        cursor.itersize = _ROWS_A_FETCH
        await cursor.execute(statement.encode(), values)
        async for key, count, value in cursor:
            yield key, Digest(count, value)


async def _nothing() -> Digests:
    """A table that is not there."""
    nothing: tuple[tuple[Any, Digest], ...] = ()
    for digest in nothing:
        yield digest


async def _paired(left: Digests, right: Digests) -> AsyncIterator[tuple[Any, Digest, Digest]]:
    """Two sequences by rising key as one."""
    old, new = await anext(left, None), await anext(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[0] < new[0]):
            assert old is not None
            yield old[0], old[1], Digest()
            old = await anext(left, None)
        elif old is None or new[0] < old[0]:
            yield new[0], Digest(), new[1]
            new = await anext(right, None)
        else:
            yield old[0], old[1], new[1]
            old, new = await anext(left, None), await anext(right, None)


def _difference(table: str, key: int | str, old: Digest, new: Digest) -> Difference:
    if old.count != new.count:
        what = f"{old.count:,} rows in force, {new.count:,} in the new one"
    else:
        what = f"{new.count:,} rows, with another content"
    if isinstance(key, int):
        return Difference(table, what, conversation_id=key)
    return Difference(table, what, user_id=key)
