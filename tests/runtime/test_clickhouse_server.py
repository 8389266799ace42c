"""The embedded ClickHouse, through clickhouse-connect's HTTP client and through HTTP itself."""

import asyncio
import gzip
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
import pytest_asyncio
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from projections.archive.clickhouse import ClickHouse
from runtime.embedded.clickhouse import ClickHouseServer
from tests.runtime.clickhouses import clickhouse_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
RUNNING = "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number)%' AND query NOT LIKE '%processes%'"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    async with clickhouse_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def client(server: ClickHouseServer) -> AsyncIterator[Any]:
    client = await asyncio.to_thread(connect, server.url)
    yield client
    client.close()


def connect(url: str) -> Any:
    return clickhouse_connect.get_client(dsn=url, autogenerate_session_id=False, tz_mode="aware")


async def post(url: str, body: bytes | str, headers: dict[str, str] | None = None, **parameters: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else body.encode()
    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        return await client.post(url, content=content, params=parameters, headers=headers)


@pytest.mark.parametrize("value", ["", "plain", "a\tb\n\\'\"`\r\0é€😀", "' OR 1 --"])
async def test_parameters_arrive_as_they_are(client: Any, value: str) -> None:
    def ask() -> Any:
        return client.query("SELECT {value:String}, {n:Int64}", parameters={"value": value, "n": -7}).result_rows

    assert await asyncio.to_thread(ask) == [(value, -7)]


async def test_a_block_inserted_again_under_its_token_changes_nothing(client: Any) -> None:
    def insert() -> list[Any]:
        client.command(
            "CREATE TABLE blocks (n Int64, text String) ENGINE = MergeTree ORDER BY n"
            " SETTINGS non_replicated_deduplication_window = 10"
        )
        rows = [[2, "FORMAT Native\nINSERT INTO"], [1, "é'\\\0"]]
        for token in ("a", "a", "b"):
            settings = {"insert_deduplication_token": token}
            client.insert("blocks", rows, column_names=["n", "text"], settings=settings)
        found: list[Any] = client.query("SELECT n, text FROM blocks ORDER BY n").result_rows
        return found

    one, two = (1, "é'\\\0"), (2, "FORMAT Native\nINSERT INTO")
    assert await asyncio.to_thread(insert) == [one, one, two, two]


async def test_settings_hold_for_their_statement_only(client: Any) -> None:
    def ask() -> list[Any]:
        sql = "SELECT getSetting('max_threads')"
        client.command("SET max_threads = 5")
        return [client.command(sql, settings={"max_threads": 3}), client.command(sql, settings={"max_threads": 4})]

    assert await asyncio.to_thread(ask) == [3, 4]


async def test_what_has_no_rows_is_told_from_what_has_no_answer(client: Any) -> None:
    def ask() -> list[Any]:
        made = client.command("CREATE TABLE IF NOT EXISTS nothing (n Int64) ENGINE = Memory")
        none = client.query("SELECT n FROM nothing").result_rows
        return [made.summary["read_rows"], none, client.query("SELECT 1 AS x LIMIT 0").column_names]

    assert await asyncio.to_thread(ask) == ["0", [], ("x",)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELECT nonsense", 47), ("SELEC 1", 62), ("SELECT * FROM nowhere", 60), ("SELECT throwIf(1)", 395), ("", 62)],
)
async def test_an_error_has_the_code_of_clickhouse(server: ClickHouseServer, sql: str, code: int) -> None:
    for whole in ("0", "1"):
        answer = await post(server.url, sql, wait_end_of_query=whole)
        assert answer.status_code >= 400
        assert answer.headers["X-ClickHouse-Exception-Code"] == str(code), answer.text
        assert answer.text.startswith(f"Code: {code}. ")


async def test_an_error_behind_the_first_rows_is_told_as_well(client: Any) -> None:
    def read() -> int:
        sql = "SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000"
        with client.query_row_block_stream(sql) as blocks:
            return sum(len(block) for block in blocks)

    with pytest.raises(StreamFailureError, match="Code: 395"):
        await asyncio.to_thread(read)


@pytest.mark.parametrize("user", ["riverrun", "analyst", "nobody", ""])
async def test_a_wrong_password_is_401_and_516(server: ClickHouseServer, user: str) -> None:
    bare = str(httpx.URL(server.url).copy_with(userinfo=b""))
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": "wrong"}
    for answer in (await post(bare, "SELECT 1", headers), await post(bare, "SELECT 1")):
        assert answer.status_code == 401
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
    with pytest.raises(DatabaseError) as refusal:
        await asyncio.to_thread(connect, str(httpx.URL(bare).copy_with(username=user or "x", password="wrong")))
    assert refusal.value.code == 516


async def test_passwords_are_for_their_owner_only(server: ClickHouseServer, tmp_path: Path) -> None:
    async with clickhouse_server(tmp_path):
        for name in ("riverrun.password", "analyst.password"):
            mode = (tmp_path / "clickhouse" / name).stat().st_mode
            assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("identity", bytes)])
async def test_rows_beside_their_statement_may_be_compressed(
    server: ClickHouseServer, name: str, pack: Callable[[bytes], bytes]
) -> None:
    await post(server.url, f"CREATE TABLE packed_{name} (n Int64) ENGINE = Memory")
    answer = await post(
        server.url, pack(b"(1),(2)"), {"Content-Encoding": name}, query=f"INSERT INTO packed_{name} FORMAT Values"
    )
    assert answer.status_code == 200, answer.text
    assert (await post(server.url, f"SELECT sum(n) FROM packed_{name}")).text == "3\n"


async def test_a_compression_that_is_none_is_refused(server: ClickHouseServer) -> None:
    for name in ("gzip", "rot13"):
        answer = await post(server.url, b"SELECT 1", {"Content-Encoding": name})
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "36")


async def test_a_statement_whose_client_is_gone_is_ended(server: ClickHouseServer) -> None:
    for whole in ("0", "1"):
        asking = asyncio.create_task(post(server.url, ENDLESS, wait_end_of_query=whole))
        await _until(server, "1")
        asking.cancel()
        await _until(server, "0")


async def _until(server: ClickHouseServer, count: str) -> None:
    async with asyncio.timeout(10):
        while (await post(server.url, RUNNING)).text.strip() != count:
            await asyncio.sleep(0.02)


async def test_statements_run_side_by_side_and_one_more_waits(server: ClickHouseServer) -> None:
    busy = [asyncio.create_task(post(server.url, ENDLESS)) for _ in range(7)]
    await _until(server, "7")
    for asking in busy:
        asking.cancel()
    await _until(server, "0")
    answers = await asyncio.gather(*(post(server.url, f"SELECT {number}") for number in range(40)))
    assert [answer.text for answer in answers] == [f"{number}\n" for number in range(40)]


async def test_killed_it_comes_back_on_its_port_with_what_it_had(tmp_path: Path) -> None:
    async with clickhouse_server(tmp_path) as server:
        archive = ClickHouse(server.url)
        batch: dict[str, list[Any]] = {"stream": ["CONV-0"], "first_sequence": [1], "last_sequence": [7], "events": [7]}
        batch |= {"undecodable": [0], "chain": ["00"]}
        await archive.insert("archive_batches", batch, token="CONV-0:1-7")
        back = asyncio.Event()
        server.child.on_restart = back.set
        assert server.child.pid is not None
        os.kill(server.child.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await back.wait()
        await archive.insert("archive_batches", batch, token="CONV-0:1-7")
        assert await archive.query("SELECT stream, last_sequence FROM archive_batches") == [("CONV-0", 7)]
        await archive.close()


async def test_the_whole_door_is_bounded(server: ClickHouseServer) -> None:
    answer = await post(server.url, "SELECT '" + "x" * (2 << 20) + "'")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "161")


async def test_memory_that_nobody_counts_is_bounded_too(server: ClickHouseServer) -> None:
    # Parquet writes a column of few different values out, beyond what the limit of a statement sees.
    expanding = "SELECT toLowCardinality(repeat('x', 900000)) FROM numbers(9000) FORMAT Parquet"
    answer = await post(server.url, expanding)
    assert answer.headers["X-ClickHouse-Exception-Code"] == "173"
    assert (await post(server.url, "SELECT 1")).text == "1\n"
