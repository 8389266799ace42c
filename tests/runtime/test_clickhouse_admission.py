"""The analyst's account of the embedded ClickHouse, attacked: questions are answered, and nothing else is done."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from runtime.embedded.clickhouse import ClickHouseServer
from tests.runtime.clickhouses import LIMITS, clickhouse_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

DENIED, READONLY, SYNTAX, UNKNOWN_TABLE, UNKNOWN_FUNCTION = "497", "164", "62", "60", "46"
TIMEOUT = "159"  # on a busy machine it may come first
SECRET = "root-only-7f3a"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    async with clickhouse_server(tmp_path_factory.mktemp("server")) as server:
        async with httpx.AsyncClient(verify=False) as client:
            for sql in (
                "CREATE TABLE t (n Int64, s String) ENGINE = MergeTree ORDER BY n",
                "INSERT INTO t SELECT number, toString(number) FROM numbers(10)",
            ):
                assert (await client.post(server.url, content=sql)).status_code == 200
        yield server


async def ask(server: ClickHouseServer, sql: str, **parameters: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        return await client.post(server.analyst_url, content=sql, params=parameters)


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT sum(n) FROM t", "45\n"),
        ("SELECT sum(n) FROM riverrun.t;", "45\n"),
        ("SELECT 1 -- ; DROP TABLE t", "1\n"),
        ("SELECT /* ) ; ( */ ')', \"n\" FROM t WHERE n = 3 ;; -- )", ")\t3\n"),
        ("WITH x AS (SELECT n FROM t) SELECT count() FROM x AS y JOIN t ON y.n = t.n", "10\n"),
        ("WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 5) SELECT sum(a) FROM r", "15\n"),
        ("SELECT n FROM t ORDER BY n DESC LIMIT 2", "9\n8\n"),
        ("(SELECT 1) UNION ALL (SELECT 1)", "1\n1\n"),
        ("SELECT 1 AS x FORMAT JSONEachRow", '{"x":1}\n'),
        ("SELECT count() FROM numbers(7)", "7\n"),
        ("SELECT name FROM system.columns WHERE table = 't' ORDER BY name", "n\ns\n"),
        ("EXPLAIN AST SELECT 7 FORMAT TSVRaw", None),
        ("/* x */ explain plan\nSELECT n FROM t", None),
        ("SELECT count() FROM t WHERE n IN (SELECT n FROM t WHERE n < 3)", "3\n"),
        ("SELECT $x$;($x$", ";(\n"),
    ],
)
async def test_questions_are_answered(server: ClickHouseServer, sql: str, answer: str | None) -> None:
    response = await ask(server, sql)
    assert (response.status_code, response.text) == (200, response.text if answer is None else answer)
    assert response.text


async def test_parameters_are_taken(server: ClickHouseServer) -> None:
    response = await ask(
        server, "SELECT count() FROM t WHERE n < {n:Int64} AND s != {s:String}", param_n="3", param_s="1"
    )
    assert response.text == "2\n"
    response = await ask(server, "SELECT * FROM {t:Identifier}", param_t="system.processes")
    assert response.headers["X-ClickHouse-Exception-Code"] == DENIED


WRITES = [
    "INSERT INTO t VALUES (1, 'x')",
    "INSERT INTO t FORMAT Values (1, 'x')",
    "INSERT INTO t SELECT 1, 'x'",
    "INSERT INTO FUNCTION file('{out}', 'CSV', 'a Int64') SELECT 1",
    "CREATE TABLE x (a Int64) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int64)",
    "DROP TABLE t",
    "ALTER TABLE t DELETE WHERE 1",
    "TRUNCATE TABLE t",
    "DELETE FROM t WHERE 1",
    "OPTIMIZE TABLE t",
    "SET readonly = 0",
    "USE system",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "ATTACH TABLE x",
    "RENAME TABLE t TO u",
    "GRANT ALL ON *.* TO analyst",
    "CREATE USER x",
    "BACKUP TABLE t TO File('{out}')",
    "SHOW PROCESSLIST",
    "SHOW CREATE TABLE t",
    "DESCRIBE TABLE s3('http://127.0.0.1:1/a/b')",
    "CHECK TABLE t",
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' FORMAT CSV",
    "SELECT 1 INTO/**/OUTFILE '{out}' TRUNCATE",
    "SELECT * FROM (SELECT 1 INTO OUTFILE '{out}')",
    "SELECT 1) INTO OUTFILE '{out}' --",
    "SELECT 1) INTO OUTFILE '{out}' FORMAT CSV /* (",
    "SELECT 1) INTO OUTFILE '{out}' UNION ALL (SELECT 1",
    "SELECT 1; SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1); SYSTEM STOP MERGES; SELECT (1",
    "SELECT 1 /* ; */ ; DROP TABLE t",
    "SELECT '1' ; -- '\nDROP TABLE t",
    "SELECT 1 \\G DROP TABLE t",
    "SELECT 1 PARALLEL WITH DROP TABLE t",
    "EXPLAIN AST SELECT 1; DROP TABLE t",
    "EXPLAIN INSERT INTO t VALUES (1, 'x')",
    "EXPLAIN AST INSERT INTO t VALUES (1, 'x')",
    "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
    "EXPLAIN SELECT 1) INTO OUTFILE '{out}' FORMAT CSV UNION ALL (SELECT 1",
    "EXPLAIN TABLE OVERRIDE mysql('x') PARTITION BY n",
    "SELECT \u201c1\u201d; DROP TABLE t",
    "SELECT 1\u00a0; DROP TABLE t",
    "SELECT 'a\\'; DROP TABLE t; --'",
    "SELECT ')' ) ; DROP TABLE t",
    "SELECT $a$ ( $a$) ; DROP TABLE t",
    "SELECT 1 #! (\n) ; DROP TABLE t",
    "SELECT (((",
    "SELECT 1 /*",
    "SELECT '",
    "SELECT 1 \0; DROP TABLE t",
    ";",
    "-- nothing",
]


@pytest.mark.parametrize("sql", WRITES)
async def test_what_is_no_question_is_refused_and_does_nothing(
    server: ClickHouseServer, sql: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    response = await ask(server, sql.replace("{out}", str(out)))
    if "\\'; DROP" not in sql:  # that one is a text
        assert response.headers.get("X-ClickHouse-Exception-Code") in {DENIED, READONLY, SYNTAX}, response.text
    assert not out.exists()
    assert (await ask(server, "SELECT count(), sum(n) FROM t")).text == "10\t45\n"
    tables = await ask(server, "SELECT name FROM system.tables WHERE database = currentDatabase()")
    assert tables.text == "t\n"


READS = [
    "SELECT * FROM '{file}'",
    "SELECT * FROM `{file}`",
    "SELECT * FROM default.`{file}`",
    'SELECT * FROM "default"."{file}"',
    "SELECT 1 WHERE 'x' IN default.`{file}`",
    "WITH `{file}` AS (SELECT 1) SELECT * FROM default.`{file}`",
    "SELECT * FROM file('{file}', 'LineAsString')",
    "SELECT * FROM fileCluster('default', '{file}', 'LineAsString')",
    "SELECT * FROM view(SELECT * FROM file('{file}', 'LineAsString'))",
    "SELECT * FROM merge('default', '.*')",
    "SELECT * FROM loop(file('{file}', 'LineAsString'))",
    "SELECT * FROM filesystem('/')",
    "SELECT * FROM python('x')",
    "SELECT * FROM executable('cat', 'LineAsString', 'a String')",
    "SELECT * FROM url('http://127.0.0.1:{port}/a', 'CSV', 'a String')",
    "SELECT * FROM default.`http://127.0.0.1:{port}/a.csv`",
    "SELECT * FROM s3('http://127.0.0.1:{port}/bucket/a', 'CSV', 'a String')",
    "SELECT * FROM S3('http://127.0.0.1:{port}/bucket/a', 'CSV', 'a String')",
    "SELECT * FROM `s3`('http://127.0.0.1:{port}/bucket/a', 'CSV', 'a String')",
    "SELECT * FROM gcs('http://127.0.0.1:{port}/bucket/a', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:{port}', 'riverrun', 't')",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', 'riverrun', 't')",
    "SELECT * FROM cluster('default', 'system', 'processes')",
    "SELECT * FROM (EXPLAIN SELECT * FROM url('http://127.0.0.1:{port}/a', 'CSV', 'a String'))",
    "EXPLAIN SELECT * FROM s3('http://127.0.0.1:{port}/bucket/a', 'CSV', 'a String')",
    "SELECT n FROM t WHERE n IN (SELECT n FROM url('http://127.0.0.1:{port}/a', 'CSV', 'n Int64'))",
    "SELECT (SELECT count() FROM url('http://127.0.0.1:{port}/a', 'CSV', 'n Int64'))",
    "SELECT n FROM t UNION ALL SELECT n FROM url('http://127.0.0.1:{port}/a', 'CSV', 'n Int64')",
    "SELECT 1 AS `x\n   TableIdentifier t`, * FROM url('http://127.0.0.1:{port}/a', 'CSV', 'n Int64')",
    "SELECT * FROM system.processes",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM system.users",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.user_processes",
    "SELECT * FROM information_schema.tables",
    "SELECT 1 WHERE 'x' IN system.processes",
    "SELECT 1 WHERE ('x', 1) NOT IN `system`.`processes`",
    "SELECT getServerSetting('max_connections')",
    "SELECT getMacro('x')",
    "SELECT catboostEvaluate('{file}', 1)",
    "SELECT file('{file}')",
    "SELECT dictGet('default.{file}', 'a', 1)",
    "SELECT * FROM system.one SETTINGS readonly = 0",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT * FROM (SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 0)",
    "WITH x AS (SELECT 1 SETTINGS max_memory_usage = 0) SELECT * FROM x",
]


@pytest.mark.parametrize("sql", READS)
async def test_nothing_is_read_beyond_the_archive(server: ClickHouseServer, sql: str, tmp_path: Path) -> None:
    file = tmp_path / "secret.csv"
    file.write_text(SECRET + "\n")
    connected = asyncio.Event()

    def connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    listener = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        response = await ask(server, sql.replace("{file}", str(file)).replace("{port}", str(port)))
    codes = {DENIED, READONLY, UNKNOWN_TABLE, UNKNOWN_FUNCTION}
    assert response.headers.get("X-ClickHouse-Exception-Code") in codes, response.text
    assert SECRET not in response.text
    assert not connected.is_set()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", "159"),
        ("SELECT count() FROM numbers(1000000000) AS a CROSS JOIN numbers(1000000000) AS b", "241"),
        ("SELECT number FROM numbers(10001)", "396"),
        ("SELECT materialize(repeat('x', 900000)) FROM numbers(5)", "396"),
        ("SELECT repeat('x', 900000) FROM numbers(9000)", "241"),
        ("SELECT toLowCardinality(repeat('x', 900000)) FROM numbers(9000) FORMAT Parquet", "241"),
        ("SELECT length(groupArray(number)) FROM numbers(1000000000)", "241"),
        ("SELECT arrayMap(x -> range(100000), range(100000))", "241"),
        ("WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT max(a) FROM r", "306"),
    ],
)
async def test_what_never_ends_or_asks_for_everything_is_ended(server: ClickHouseServer, sql: str, code: str) -> None:
    response = await ask(server, sql, wait_end_of_query="1")
    assert response.headers.get("X-ClickHouse-Exception-Code") in {code, TIMEOUT}, response.text
    unlimited = await ask(server, sql, wait_end_of_query="1", **dict.fromkeys(LIMITS, "0"), readonly="0")
    assert unlimited.headers.get("X-ClickHouse-Exception-Code") in {code, TIMEOUT}, unlimited.text


async def test_limits_can_be_made_narrower_and_no_other_setting_is_taken(server: ClickHouseServer) -> None:
    response = await ask(server, "SELECT number FROM numbers(11)", max_result_rows="10", wait_end_of_query="1")
    assert response.headers.get("X-ClickHouse-Exception-Code") == "396"
    for name in ("max_threads", "output_format_parquet_row_group_size", "x y", "log_comment"):
        response = await ask(server, "SELECT 1", **{name: "1"})
        assert response.headers.get("X-ClickHouse-Exception-Code") == READONLY


async def test_analysts_leave_the_owner_its_turn(server: ClickHouseServer) -> None:
    asking = [
        asyncio.create_task(ask(server, "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")) for _ in range(6)
    ]
    async with httpx.AsyncClient(verify=False) as client:
        for _ in range(20):
            assert (await client.post(server.url, content="SELECT 1")).text == "1\n"
    assert not all(task.done() for task in asking)
    for task in asking:
        task.cancel()
