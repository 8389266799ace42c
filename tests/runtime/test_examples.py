"""Examples that follow the log, run as the reader would run them: beside a running server."""

import asyncio
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

from runtime.client import HttpClient
from tests.running import Running

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0


@asynccontextmanager
async def milestones(running: Running, database: Path) -> AsyncIterator[Process]:
    command = (sys.executable, "examples/milestones.py", "--data-dir", running.data_dir, "--every", "1")
    process = await asyncio.create_subprocess_exec(
        *command, "--database", database, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def counted(process: Process, user_id: str, messages: int) -> list[int]:
    """What is said of a user, up to a number of messages."""
    assert process.stdout is not None
    said: list[int] = []
    output: list[bytes] = []
    async with asyncio.timeout(WITHIN_S):
        while said[-1:] != [messages]:
            output.append(await process.stdout.readline())
            assert output[-1], b"".join(output).decode()
            if found := re.match(rf"{user_id} has written (\d+) messages", output[-1].decode()):
                said.append(int(found[1]))
    return said


async def test_milestones_counts_every_message_once_also_when_it_was_killed(running: Running, tmp_path: Path) -> None:
    user_id = f"ann-{token_hex(4)}"
    async with HttpClient(running.url, running.token(user_id)) as http:
        conversation = await http.create_conversation("group", [f"bob-{token_hex(4)}"])
        conversation_id = conversation["conversation_id"]

        async def say(number: int) -> None:
            await http.post(conversation_id, f"message {number}")

        await say(1)
        async with milestones(running, tmp_path / "milestones.sqlite") as process:
            assert await counted(process, user_id, 1) == [1]
            await say(2)
            await say(3)
            assert await counted(process, user_id, 3) == [2, 3]
        await say(4)
        async with milestones(running, tmp_path / "milestones.sqlite") as process:
            assert await counted(process, user_id, 4) == [4]
