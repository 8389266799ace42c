"""The archive's files: ClickHouse keeps a checksum of each, which is looked at before anything is read.

A block whose checksum does not match is not read at all: ClickHouse tries for minutes which bit it is, and refuses. So
of a table with a broken part it is told not to look, and the rows themselves say, where they can be read, what differs.
"""

from typing import Final

from projections.archive import raw
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.typed import TABLES
from projections.evidence.findings import ARCHIVE, Finding, Findings

BATCHES: Final = "archive_batches"
UNCHECKED: Final = " SETTINGS checksum_on_read = 0"

SAID_MAX: Final = 300  # characters of what ClickHouse says

_PARTS: Final = """
    SELECT name FROM system.parts WHERE active AND database = currentDatabase() AND table = {table:String}
    ORDER BY name"""
_CHECK: Final = "CHECK TABLE {table} PART '{part}' SETTINGS check_query_single_value_result = 0"
_EXTENT: Final = """
    SELECT stream, min({sequence}), max({sequence}) FROM {table} WHERE _part = {{part:String}} GROUP BY stream
    ORDER BY stream"""
_MERGED: Final = "NO_SUCH_DATA_PART"  # between the listing and the look it has become part of another


async def check_parts(clickhouse: ClickHouse, findings: Findings) -> frozenset[str]:
    """Look at the files of all tables; those that have a broken part.

    Raises:
        ArchiveUnavailable: ClickHouse does not answer.
    """
    broken = set()
    for table in (raw.TABLE, BATCHES, *(table.name for table in TABLES)):
        for (part,) in await clickhouse.query(_PARTS, {"table": table}):
            if said := await _broken(clickhouse, table, part):
                broken.add(table)
                findings.add(await _finding(clickhouse, table, part, said))
    return frozenset(broken)


async def _broken(clickhouse: ClickHouse, table: str, part: str) -> str:
    """What is wrong with a part; "" when nothing is."""
    try:
        ((_, passed, said, *_),) = await clickhouse.query(_CHECK.format(table=table, part=part))
    except ArchiveRefused as error:
        return "" if _MERGED in str(error) else str(error)
    return "" if str(passed) == "1" else str(said)[:SAID_MAX]


async def _finding(clickhouse: ClickHouse, table: str, part: str, said: str) -> Finding:
    sequence = "last_sequence" if table == BATCHES else "sequence"
    what = f"the file of part {part} is not what was written: {said}"
    try:
        statement = _EXTENT.format(table=table, sequence=sequence) + UNCHECKED
        extent = await clickhouse.query(statement, {"part": part})
    except ArchiveRefused:
        extent = ()
    if not extent:
        return Finding(ARCHIVE, table, "", 0, what)
    stream, first, last = extent[0]
    more = f", and of {len(extent) - 1} more streams" if len(extent) > 1 else ""
    return Finding(ARCHIVE, table, stream, last, f"{what}; it has rows from {stream}:{first} to here{more}")
