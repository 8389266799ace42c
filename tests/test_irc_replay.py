"""The real input: a channel's log imported through the public API while a member listens, killed and resumed."""

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path

import httpx
import pytest

from runtime.client import ClientError, WebSocketClient
from tests.running import Running

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "ubuntu-irc"
SPOKEN = re.compile(rb"\[\d\d:\d\d\] <([^>]+)>(?: (.*))?", re.DOTALL)
ACTION = re.compile(rb"\[\d\d:\d\d\]  \* (\S+) ?(.*)", re.DOTALL)

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared IRC corpus is not on this machine")


def expected(files: list[Path]) -> list[tuple[str, str]]:
    """(author, text) of every line with text: a second, independent reading of the files."""
    lines = []
    for file in files:
        for raw in file.read_bytes().split(b"\n"):
            if spoken := SPOKEN.fullmatch(raw):
                nick, text = spoken[1], spoken[2] or b""
            elif action := ACTION.fullmatch(raw):
                nick, text = action[1], b"/me " + action[2] if action[2].strip() else b""
            else:
                continue
            if text.strip():
                lines.append((nick.decode().replace(" ", ""), text.decode("utf-8", "replace")))
    return lines


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """A command of Riverrun's, started."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode() or errors.decode()


async def appended(running: Running) -> float:
    """How many events the writers of this run have appended."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{running.url}/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("riverrun_writer_events_total"))


async def until_appended(running: Running, count: int) -> None:
    async with asyncio.timeout(300):
        while await appended(running) < count:
            await asyncio.sleep(0.02)


async def history(running: Running, conversation_id: str, user: str) -> list[tuple[int, str, str]]:
    """(seq, author, text) of all messages, page by page, oldest first."""
    found: list[tuple[int, str, str]] = []
    headers = {"Authorization": f"Bearer {running.token(user)}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers) as client:
        while True:
            after = found[-1][0] if found else 0
            url = f"/v1/conversations/{conversation_id}/messages?after={after}&limit=200"
            page = (await client.get(url)).raise_for_status().json()
            found += [(m["seq"], m["sender_id"], m["body"]["text"]) for m in page["messages"]]
            if not page["has_more"]:
                return found


async def listen(running: Running, user: str, last: int) -> list[int]:
    """The seqs pushed to a user, up to the last, or until the server is gone."""
    seqs: list[int] = []
    with contextlib.suppress(ClientError):
        async with WebSocketClient(running.url, running.token(user)) as client:
            async for push in client.pushes():
                event = push.get("event", {})
                if event.get("type") == "message.posted":
                    seqs.append(event["data"]["seq"])
                    if seqs[-1] == last:
                        break
    return seqs


async def test_a_channel_log_is_imported_once_whatever_happens(tmp_path: Path, whole_corpus: bool) -> None:
    files = sorted(CORPUS.glob("*.txt"))[: None if whole_corpus else 2]
    lines = expected(files)
    before_the_kill = len(lines) // 3
    running = Running(tmp_path / "data")
    await running.start()
    command = ["import", "irc", *map(str, files), "--conversation", "ubuntu", "--as-fast-as-possible"]
    command += ["--data-dir", str(running.data_dir)]
    try:
        member = lines[0][0]
        listening = asyncio.create_task(listen(running, member, len(lines)))
        importing = await start(*command)
        await until_appended(running, before_the_kill)
        await running.kill()
        heard = await asyncio.wait_for(listening, 30)
        assert heard == list(range(1, len(heard) + 1))
        assert heard
        importing.kill()
        await importing.communicate()
        await running.start()

        listening = asyncio.create_task(listen(running, member, len(lines)))
        importing = await start(*command)
        code, output = await finish(importing)
        assert code == 0, output
        result = json.loads(output.splitlines()[-1])
        assert result["last_seq"] == len(lines)
        assert result["posted"] + result["duplicates"] == len(lines)
        assert result["duplicates"] > 0
        heard = await asyncio.wait_for(listening, 30)
        assert heard == list(range(heard[0], len(lines) + 1))

        code, output = await finish(await start(*command))
        again = json.loads(output.splitlines()[-1])
        assert (code, again["posted"], again["duplicates"]) == (0, 0, len(lines))

        read = await history(running, result["conversation_id"], member)
        assert [seq for seq, _, _ in read] == list(range(1, len(lines) + 1))
        assert [(author, text) for _, author, text in read] == lines

        code, output = await finish(await start("verify", "--json", "--data-dir", str(running.data_dir)))
        assert code == 0, output
    finally:
        assert await running.stop() == 0
