"""`riverrun sql` against a running server: once, from stdin, into a file, and in a conversation on a terminal."""

import asyncio
import io
import json
import os
import pty
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from tests.running import Running

WAIT_S = 30.0


async def sql(running: Running, *arguments: str, stdin: str = "") -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", "sql", *arguments, "--data-dir", str(running.data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT_S):
        out, said = await process.communicate(stdin.encode())
    return process.returncode, out.decode(errors="replace"), said.decode()


async def test_one_question_is_answered_in_each_form(running: Running, tmp_path: Path) -> None:
    question = "SELECT number AS n, toString(number) AS text FROM numbers(2) ORDER BY n"
    status, out, _ = await sql(running, question)
    assert status == 0
    assert [re.findall(r"\w+", line) for line in out.splitlines() if re.search(r"\w", line)] == [
        ["n", "text"],
        ["0", "0"],
        ["1", "1"],
        ["2", "rows"],
    ]
    status, out, _ = await sql(running, "--format", "csv", stdin=question)
    assert (status, out) == (0, '"n","text"\n0,"0"\n1,"1"\n')
    status, out, _ = await sql(running, question + ";", "--format", "ndjson")
    assert [json.loads(line) for line in out.splitlines()] == [{"n": "0", "text": "0"}, {"n": "1", "text": "1"}]
    path = tmp_path / "answer.parquet"
    assert (await sql(running, question, "--format", "parquet", "--output", str(path)))[0] == 0
    assert pyarrow.parquet.read_table(io.BytesIO(path.read_bytes())).num_rows == 2


async def test_a_refused_question_says_why_and_leaves_the_file_alone(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text("before")
    status, out, said = await sql(running, "DROP TABLE messages", "--format", "csv", "--output", str(path))
    assert (status, out) == (1, "")
    assert "Only SELECT, WITH and EXPLAIN" in said
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


async def test_what_others_wrote_does_not_command_the_terminal(running: Running) -> None:
    status, out, _ = await sql(running, "SELECT '\\x1b[2Jgone' AS x, '[red]plain' AS y")
    assert status == 0
    assert "\x1b" not in out
    assert "\\x1b[2Jgone" in out
    assert "[red]plain" in out


async def test_a_conversation(running: Running) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", "sql", "--data-dir", str(running.data_dir)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
    )
    os.close(theirs)
    said = bytearray()
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()

    def read() -> None:
        try:
            said.extend(os.read(ours, 65536))
        except OSError:  # the other side is closed
            loop.remove_reader(ours)
        heard.set()

    async def until(text: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while text.encode() not in said:
                heard.clear()
                await heard.wait()
        said.clear()

    loop.add_reader(ours, read)
    try:
        await until("riverrun> ")
        for line, expected in (
            ("\\d", "archive_batches"),
            ("\\d messages", "sender_id"),
            ("SELECT 40 +", "-> "),
            ("2 AS answer;", "42"),
            ("SELECT nonsense;", "Unknown expression identifier"),
            ("SELECT 'still' || 'here';", "stillhere"),
        ):
            os.write(ours, line.encode() + b"\n")
            await until(expected)
        os.write(ours, b"\\q\n")
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        if process.returncode is None:
            process.kill()
    history = running.data_dir / "sql.history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "SELECT nonsense;" in history.read_text()


@pytest.mark.parametrize(("arguments", "words"), [(("--url", "http://127.0.0.1:1", "SELECT 1"), "does not answer")])
async def test_no_server_is_one_plain_line(running: Running, arguments: tuple[Any, ...], words: str) -> None:
    status, out, said = await sql(running, *arguments)
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert words in said
