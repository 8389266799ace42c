"""The analysts' door: what it answers, in which forms, to whom, and how it refuses."""

import asyncio
import csv
import io
import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pyarrow.ipc  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from tests.api.conftest import NewUser, User, assert_problem
from tests.running import Running

ROWS = "SELECT number AS n, toString(number) || 'é' AS text FROM numbers(3) ORDER BY n"
ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"


@pytest.fixture
def analyst(client: httpx.AsyncClient, running: Running) -> User:
    user_id = f"analyst-{secrets.token_hex(6)}"
    return User(client, user_id, running.token(user_id, analyst=True))


async def ask(user: User, sql: str, accept: str | None = None, **body: Any) -> httpx.Response:
    headers = {"accept": accept} if accept else None
    return await user.request("POST", "/v1/sql", json={"sql": sql, **body}, headers=headers)


async def test_messages_are_there_soon_after_they_were_posted(alice: User, analyst: User) -> None:
    conversation_id = await alice.open_group()
    for text in ("one", "two\t\\n'"):
        await alice.say(conversation_id, text)
    sql = "SELECT sender_id, seq, text FROM messages WHERE conversation_id = {id:UInt64} AND text != {not:String}"
    async with asyncio.timeout(20):
        while len((await ask(analyst, sql, parameters={"id": conversation_id, "not": ""})).text.splitlines()) < 2:
            await asyncio.sleep(0.05)
    response = await ask(analyst, sql, parameters={"id": conversation_id, "not": "two\t\\n'"})
    assert [json.loads(line) for line in response.text.splitlines()] == [
        {"sender_id": alice.user_id, "seq": "1", "text": "one"}
    ]


async def test_the_form_is_chosen_by_accept_or_in_the_body(analyst: User) -> None:
    expected = [(0, "0é"), (1, "1é"), (2, "2é")]
    for accept, body in ((None, {}), ("text/html, application/x-ndjson;q=0.9", {}), ("text/csv", {"format": "ndjson"})):
        response = await ask(analyst, ROWS, accept, **body)
        assert response.headers["content-type"] == "application/x-ndjson"
        assert [(int(row["n"]), row["text"]) for row in map(json.loads, response.text.splitlines())] == expected
    response = await ask(analyst, ROWS, "text/csv")
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(int(row["n"]), row["text"]) for row in rows] == expected
    response = await ask(analyst, ROWS, format="table")
    names, types, *lines = map(json.loads, response.text.splitlines())
    assert (names, types, len(lines)) == (["n", "text"], ["UInt64", "String"], 3)
    response = await ask(analyst, ROWS, format="parquet")
    assert pyarrow.parquet.read_table(io.BytesIO(response.content)).column("n").to_pylist() == [0, 1, 2]
    response = await ask(analyst, ROWS, "application/vnd.apache.arrow.stream")
    assert pyarrow.ipc.open_stream(response.content).read_all().column("n").to_pylist() == [0, 1, 2]
    assert response.headers["content-length"] == str(len(response.content))


async def test_only_analysts_and_admins_are_answered(
    client: httpx.AsyncClient, running: Running, new_user: NewUser, analyst: User
) -> None:
    assert_problem(await ask(new_user("nobody"), "SELECT 1"), 403, "forbidden")
    assert (await ask(analyst, "SELECT 1")).status_code == 200
    assert (await ask(User(client, "root", running.token("root", admin=True)), "SELECT 1")).status_code == 200
    assert_problem(await client.post("/v1/sql", json={"sql": "SELECT 1"}), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("SELECT nonsense", 47, "nonsense"),
        ("SELEC 1", 62, "Syntax error"),
        ("SELECT 1; SELECT 2", 497, "one statement at a time"),
        ("DROP TABLE messages", 62, "Only SELECT, WITH and EXPLAIN"),
        ("INSERT INTO messages (seq) VALUES (1)", 62, "Only SELECT, WITH and EXPLAIN"),
        ("SELECT 1) INTO OUTFILE '{out}' --", 62, "brackets"),
        ("SELECT 1 INTO OUTFILE '{out}'", 62, "OUTFILE"),
        ("SELECT * FROM s3('http://127.0.0.1:1/a/b')", 497, "s3"),
        ("SELECT * FROM default.`/etc/passwd`", 497, "/etc/passwd"),
        ("SELECT * FROM system.processes", 497, "system.processes"),
        ("SELECT 1 SETTINGS max_execution_time = 0", 497, "SETTINGS"),
        ("KILL QUERY WHERE 1", 62, "Only SELECT"),
        ("SYSTEM SHUTDOWN", 62, "Only SELECT"),
        ("SELECT number FROM numbers(100001)", 396, "max rows"),
        ("SELECT arrayMap(x -> range(100000), range(100000))", 241, "memory limit"),
        ("SELECT {missing:String}", 456, "missing"),
    ],
)
async def test_what_is_refused_is_refused_in_clickhouse_s_words(
    analyst: User, sql: str, code: int, words: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    problem = assert_problem(await ask(analyst, sql.replace("{out}", str(out))), 422, "invalid")
    assert problem["clickhouse_code"] == code
    assert words in problem["detail"]
    assert not out.exists()


async def test_the_form_is_not_chosen_by_the_statement(analyst: User) -> None:
    problem = assert_problem(await ask(analyst, "SELECT 1 FORMAT CSV"), 422, "invalid")
    assert "FORMAT" in problem["detail"]
    assert (await ask(analyst, "SELECT 1 FORMAT JSONEachRow")).text == '{"1":1}\n'


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sql": ""},
        {"sql": "SELECT 1", "settings": {"readonly": 0}},
        {"sql": "SELECT 1", "format": "Native"},
        {"sql": "SELECT 1", "parameters": {"a b": "1"}},
        {"sql": "SELECT 1", "parameters": {"x&readonly": "0"}},
        {"sql": "x" * 100_001},
    ],
)
async def test_a_body_that_is_none_is_refused(analyst: User, body: dict[str, Any]) -> None:
    response = await analyst.post("/v1/sql", body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")


async def test_statements_that_never_end_are_bounded_in_number_and_leave_the_others_alone(
    analyst: User, alice: User
) -> None:
    asking = [asyncio.create_task(ask(analyst, ENDLESS)) for _ in range(5)]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert_problem(done.pop().result(), 429, "rate_limited")
    await alice.say(await alice.open_group(), "meanwhile")
    for task in asking:  # their clients go away, and their turns are free at once
        task.cancel()
    async with asyncio.timeout(10):
        while (await ask(analyst, "SELECT 1")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_an_answer_that_nobody_takes_holds_no_turn(analyst: User, running: Running) -> None:
    sql = "SELECT number, materialize(repeat('x', 500)) FROM numbers(20000)"
    for _ in range(6):
        async with httpx.AsyncClient(base_url=running.url) as client:
            headers = {"authorization": f"Bearer {analyst.token}"}
            async with client.stream("POST", "/v1/sql", json={"sql": sql}, headers=headers) as response:
                assert response.status_code == 200
                await anext(response.aiter_raw())
    async with asyncio.timeout(10):
        while (await ask(analyst, "SELECT 1")).status_code != 200:
            await asyncio.sleep(0.05)
