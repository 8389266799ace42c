"""`python -m benchmarks.layouts --url http://…`: what else the archive's tables could be, in bytes and in time.

Takes a part of an archive that is there, so that what is measured is what people wrote, and stores it again in a
database of its own, which it drops: each column in each codec; each table in other orders and partitions; the messages
with other indexes of words. One thread reads, and the least of several times counts.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from streams.ports import ArchiveUnavailable

DATABASE: Final = "riverrun_layouts"
ROWS: Final = 500_000
TRIES: Final = 3
PLACES: Final = 20  # histories and pages that are read, of each table the same
PAGE: Final = 50
SEED: Final = 1
# With that filtering chDB 26 fails on some orders: it takes the condition's parameter for the column that is sorted by.
_SETTINGS: Final = "max_threads = 1, use_top_k_dynamic_filtering = 0"

_NUMBERS: Final = (
    "LZ4",
    "ZSTD(1)",
    "Delta, LZ4",
    "Delta, ZSTD(1)",
    "DoubleDelta, ZSTD(1)",
    "T64, ZSTD(1)",
)
_TEXTS: Final = ("LZ4", "ZSTD(1)", "ZSTD(3)", "ZSTD(6)", "ZSTD(9)")
_AS_THEY_ARE: Final = ("LowCardinality(String)",)  # a dictionary, and next to nothing

_ORDERS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "events": (
        ("intDiv(sequence, 1048576)", "subject, version, sequence"),
        ("intDiv(sequence, 1048576)", "sequence"),
        ("tuple()", "subject, version, sequence"),
    ),
    "messages": (
        ("toYYYYMM(created_at)", "conversation_id, seq"),
        ("toYYYYMM(created_at)", "created_at, conversation_id, seq"),
        ("tuple()", "conversation_id, seq"),
        ("toYYYYMMDD(created_at)", "conversation_id, seq"),
    ),
}
_KEYS: Final = {"events": "subject, version, sequence", "messages": "conversation_id, seq"}
_INDEXES: Final = (
    "",
    "INDEX words text TYPE text(tokenizer = 'splitByNonAlpha', preprocessor = lower(text))",
    "INDEX words text TYPE text(tokenizer = ngrams(3), preprocessor = lower(text))",
    "INDEX words lower(text) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 1",
)


class Column(NamedTuple):
    """A column of a table, as it is."""

    name: str
    type: str
    codec: str


class Layouts:
    """Measures one archive."""

    def __init__(self, clickhouse: ClickHouse, rows: int) -> None:
        self._clickhouse = clickhouse
        self._rows = rows

    async def columns(self, table: str) -> Sequence[Column]:
        """Those of a table of the archive."""
        rows = await self._clickhouse.query(
            "SELECT name, type, compression_codec FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
            {"table": table},
        )
        return [
            Column(name, type_, codec.removeprefix("CODEC(").removesuffix(")").replace("Delta(8)", "Delta"))
            for name, type_, codec in rows
        ]

    async def take(self, table: str) -> int:
        """Copy so many rows of a table, in the table's order; how many there were."""
        await self._clickhouse.command(
            f"CREATE TABLE {DATABASE}.{table} ENGINE = MergeTree ORDER BY tuple() AS "
            f"SELECT * FROM (SELECT * FROM {table} LIMIT {self._rows}) ORDER BY {_KEYS[table]}"
        )
        return int((await self._clickhouse.query(f"SELECT count() FROM {DATABASE}.{table}"))[0][0])

    async def codecs(self, table: str) -> Table:
        """Every column in every codec that may suit it."""
        total = await self.take(table)
        shown = Table(
            *("column", "codec", "bytes a row", "writing, ns a row", "reading, ns a row"),
            title=f"{table}: {total:,} rows",
        )
        for column in await self.columns(table):
            if column.type.startswith(_AS_THEY_ARE):
                continue
            for codec in _codecs_of(column):
                name = f"{DATABASE}.codec"
                await self._clickhouse.command(
                    f"CREATE TABLE {name} (c {column.type} CODEC({codec})) ENGINE = MergeTree ORDER BY tuple()"
                )
                began_s = time.perf_counter()
                await self._clickhouse.command(
                    f"INSERT INTO {name} SELECT {column.name} FROM {DATABASE}.{table} SETTINGS max_threads = 1"
                )
                written_s = time.perf_counter() - began_s
                size, seconds = await self._size("codec"), await self._least(f"SELECT ignore(c) FROM {name}")
                await self._clickhouse.command(f"DROP TABLE {name}")
                now = " (now)" if codec == column.codec else ""
                times = (f"{took_s / total * 1e9:.0f}" for took_s in (written_s, seconds))
                shown.add_row(column.name, codec + now, f"{size / total:.2f}", *times)
            shown.add_section()
        return shown

    async def orders(self, table: str) -> Table:
        """A table in other orders and partitions."""
        key = _KEYS[table].partition(",")[0]
        shown = Table(
            *("partition", "order", "bytes a row", "parts", "a history, ms", "a page, ms", "all in log order, s"),
            title=f"{table}: orders",
        )
        total = (await self._clickhouse.query(f"SELECT count() FROM {DATABASE}.{table}"))[0][0]
        ids = [
            row[0]
            for row in await self._clickhouse.query(
                f"SELECT DISTINCT {key} FROM {DATABASE}.{table} ORDER BY cityHash64({key}, {SEED}) LIMIT {PLACES}"
            )
        ]
        number = _KEYS[table].split(", ")[1]
        for partition, order in _ORDERS[table]:
            await self._stored(table, partition, order)
            of = f"FROM {DATABASE}.stored WHERE {key} = {{id:String}}"
            history = [await self._least(f"SELECT ignore(*) {of}", {"id": str(id_)}) for id_ in ids]
            page = [
                await self._least(f"SELECT * {of} ORDER BY {number} DESC LIMIT {PAGE}", {"id": str(id_)}) for id_ in ids
            ]
            replay = await self._least(
                f"SELECT ignore(*) FROM (SELECT * FROM {DATABASE}.stored ORDER BY stream, sequence)"
            )
            size, parts = await self._size("stored"), await self._parts()
            shown.add_row(
                *(partition, order, f"{size / total:.1f}", str(parts)),
                *(f"{statistics.median(history) * 1000:.1f}", f"{statistics.median(page) * 1000:.1f}", f"{replay:.2f}"),
            )
            await self._clickhouse.command(f"DROP TABLE {DATABASE}.stored")
        return shown

    async def words(self) -> Table:
        """The messages with other indexes of their words."""
        shown = Table("index", "bytes a row", "a rare word, ms", "a common word, ms", title="messages: words")
        total = (await self._clickhouse.query(f"SELECT count() FROM {DATABASE}.messages"))[0][0]
        found = await self._clickhouse.query(
            "SELECT word, count() AS n FROM (SELECT arrayJoin(arrayDistinct(splitByNonAlpha(lower(text)))) AS word "
            f"FROM {DATABASE}.messages) WHERE length(word) > 3 GROUP BY word ORDER BY n, word"
        )
        rare, common = next(word for word, n in found if n >= min(5, found[-1][1])), found[-1][0]
        for index in _INDEXES:
            await self._stored("messages", "toYYYYMM(created_at)", _KEYS["messages"], index)
            asked = f"SELECT count() FROM {DATABASE}.stored WHERE {_asking(index)}"
            times = [await self._least(asked, {"word": word}) for word in (rare, common)]
            size = await self._size("stored", "secondary_indices_compressed_bytes")
            label = index.removeprefix("INDEX words ") or "none"
            shown.add_row(label, f"{size / total:.1f}", *(f"{seconds * 1000:.1f}" for seconds in times))
            await self._clickhouse.command(f"DROP TABLE {DATABASE}.stored")
        return shown

    async def _stored(self, table: str, partition: str, order: str, index: str = "") -> None:
        """A table in another form, merged as far as it ever is."""
        fields = [f"{c.name} {c.type}{f' CODEC({c.codec})' if c.codec else ''}" for c in await self.columns(table)]
        await self._clickhouse.command(
            f"CREATE TABLE {DATABASE}.stored ({', '.join([*fields, index] if index else fields)}) ENGINE = MergeTree "
            f"PARTITION BY {partition} ORDER BY ({order})"
        )
        await self._clickhouse.command(
            f"INSERT INTO {DATABASE}.stored SELECT * FROM {DATABASE}.{table} "
            "SETTINGS max_partitions_per_insert_block = 0"
        )
        await self._clickhouse.command(f"OPTIMIZE TABLE {DATABASE}.stored FINAL")

    async def _size(self, table: str, of: str = "data_compressed_bytes") -> int:
        rows = await self._clickhouse.query(
            f"SELECT sum({of}) FROM system.parts WHERE active AND database = '{DATABASE}' AND table = {{table:String}}",
            {"table": table},
        )
        return int(rows[0][0])

    async def _parts(self) -> int:
        rows = await self._clickhouse.query(
            f"SELECT count() FROM system.parts WHERE active AND database = '{DATABASE}' AND table = 'stored'"
        )
        return int(rows[0][0])

    async def _least(self, sql: str, parameters: Mapping[str, str] | None = None) -> float:
        """The least of several times of a statement, in seconds, which gives few rows or none."""
        times = []
        for _ in range(TRIES):
            began_s = time.perf_counter()
            await self._clickhouse.query(f"{sql} SETTINGS {_SETTINGS}", parameters)
            times.append(time.perf_counter() - began_s)
        return min(times)


def _asking(index: str) -> str:
    """How a word is asked for, so that the index serves."""
    if "splitByNonAlpha" in index:
        return "hasAllTokens(text, {word:String})"
    if "tokenbf" in index:
        return "hasToken(lower(text), {word:String})"
    return "lower(text) LIKE concat('%', {word:String}, '%')"


def _codecs_of(column: Column) -> Iterator[str]:
    """Those that may suit a column, and the one it has."""
    of_numbers = column.type.startswith(("UInt", "DateTime"))
    candidates = _NUMBERS if of_numbers else _TEXTS
    yield from candidates
    if column.codec and column.codec not in candidates:
        yield column.codec


async def _measure(url: str, rows: int, show: Callable[[Table], None]) -> None:
    """Each table is shown as soon as it is there: all of them take minutes."""
    clickhouse = ClickHouse(url)
    try:
        await clickhouse.command(f"DROP DATABASE IF EXISTS {DATABASE}")
        await clickhouse.command(f"CREATE DATABASE {DATABASE}")
        try:
            layouts = Layouts(clickhouse, rows)
            for table in _ORDERS:
                show(await layouts.codecs(table))
                show(await layouts.orders(table))
            show(await layouts.words())
        finally:
            await clickhouse.command(f"DROP DATABASE {DATABASE}")
    finally:
        await clickhouse.close()


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="of ClickHouse, as in RIVERRUN_CLICKHOUSE_URL; it has an archive")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of each table, {ROWS:,} unless told")
    arguments = parser.parse_args()
    try:
        asyncio.run(_measure(arguments.url, arguments.rows, Console().print))
    except (ArchiveUnavailable, ArchiveRefused) as error:
        print(f"benchmarks.layouts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
