"""The client of ClickHouse: its schema, its blocks, its streams, its errors."""

from typing import Any

import pytest

from projections.archive.clickhouse import ArchiveRefused, ClickHouse

pytestmark = pytest.mark.asyncio(loop_scope="session")

BATCH: dict[str, list[Any]] = {
    "stream": ["CONV-0"],
    "first_sequence": [1],
    "last_sequence": [7],
    "events": [7],
    "undecodable": [0],
    "chain": ["00"],
}


async def test_it_migrates_once_and_a_block_inserted_again_after_a_restart_changes_nothing(clickhouse_url: str) -> None:
    for _ in range(2):
        clickhouse = ClickHouse(clickhouse_url)
        clickhouse.open()
        opened_at_once = clickhouse.is_ready
        await clickhouse.insert("archive_batches", BATCH, token="CONV-0:1-7")
        assert (opened_at_once, clickhouse.is_ready) == (False, True)
        assert await clickhouse.query("SELECT last_sequence FROM archive_batches") == [(7,)]
        names = await clickhouse.query("SELECT name FROM schema_migrations ORDER BY name")
        assert names == [("0001_archive.sql",)]
        await clickhouse.close()
        await clickhouse.close()


async def test_more_rows_than_fit_come_in_blocks_and_may_be_left(clickhouse: ClickHouse) -> None:
    sizes = [len(block) async for block in clickhouse.stream("SELECT number FROM numbers({n:UInt64})", {"n": 200_000})]
    assert sum(sizes) == 200_000
    assert len(sizes) > 1
    for _ in range(10):  # more often than there are clients
        blocks = clickhouse.stream("SELECT number FROM numbers(200000)")
        assert (await anext(blocks))[0] == (0,)
        await blocks.aclose()
    assert await clickhouse.query("SELECT 1") == [(1,)]


async def test_a_refused_statement_is_told_from_one_that_may_be_tried_again(clickhouse: ClickHouse) -> None:
    with pytest.raises(ArchiveRefused, match="nonsense"):
        await clickhouse.query("SELECT nonsense")
    with pytest.raises(ArchiveRefused, match="nonsense"):
        _ = [block async for block in clickhouse.stream("SELECT nonsense")]
    assert await clickhouse.query("SELECT 1") == [(1,)]
