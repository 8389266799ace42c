"""`riverrun log` and `riverrun as-of` as operators see them, over a real log that was trimmed behind its archive."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from domain.events import ReadMoved
from projections.archive.clickhouse import ClickHouse
from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer
from streams.jetstream import JetStream
from streams.ports import Record
from streams.topology import Topology
from tests.archive.archiving import archive_all
from tests.projections.history import STREAM, USERS, History, UserHistory, append
from tests.runtime.clickhouses import clickhouse_server

MESSAGES = 20
TRIMMED = 12


class Logged:
    """A log, trimmed behind its archive, and the data dir of the deployment it is of."""

    def __init__(self, jetstream: JetStream, data_dir: Path, history: History) -> None:
        self.jetstream = jetstream
        self.data_dir = data_dir
        self.history = history
        self.id = history.conversations[0].id
        self.message_id = history.conversations[0].last_message_id

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runtime.cli", *arguments, "--data-dir", str(self.data_dir)]

    async def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def logged(tmp_path_factory: Any) -> AsyncIterator[Logged]:
    folder = tmp_path_factory.mktemp("log")
    server = NatsServer(folder / "nats", folder / "nats.log", free_port(), free_port())
    await server.child.start()
    jetstream = await JetStream.connect(server.url, name="test")
    await jetstream.log.ensure(Topology())
    history, users = History(jetstream.log), UserHistory(jetstream.log)
    group = history.create("ann", "bob", name="Rapids")
    for number in range(MESSAGES):
        history.post(group, "ann" if number % 2 else "bob", f"message {number}")
    users.happened("bob", ReadMoved, conversation_id=int(group.id), seq=3)
    await history.append()
    await users.append()
    await append(jetstream.log, [Record("conv.0.junk", b"\x00", {})])
    async with clickhouse_server(folder) as clickhouse:
        archive = ClickHouse(clickhouse.url)
        await archive_all(jetstream.log, archive)
        await archive.close()
        await jetstream.log.trim(STREAM, TRIMMED)
        await jetstream.log.trim(USERS, 2)
        urls = {"nats_url": server.url, "clickhouse_url": clickhouse.url}
        (folder / "run.json").write_text(json.dumps({"url": "http://127.0.0.1:1", **urls}))
        (folder / "jwt.secret").write_text("s" * 32)
        yield Logged(jetstream, folder, history)
    await jetstream.close()
    await server.child.stop()


async def test_what_is_asked_for_is_printed_and_what_was_trimmed_comes_from_the_archive(logged: Logged) -> None:
    everything, tail, grep, whole, conversation = await asyncio.gather(
        logged.ask("log", "tail", "-n", "1000", "--json"),
        logged.ask("log", "tail", "-n", "2", "-c", logged.id, "--type", "message.*"),
        logged.ask("log", "grep", "-i", "MESSAGE 1[0-3]", "--user", "ann", "--limit", "2"),
        logged.ask("log", "show", str(logged.message_id)),
        logged.ask("as-of", "11", "conversation", logged.id, "--json"),
    )
    events = [json.loads(line) for line in everything.stdout.splitlines()]
    assert [event["type"] for event in events].count("message.posted") == MESSAGES
    assert [event["sequence"] for event in events if event["stream"] == STREAM] == list(range(1, MESSAGES + 3))
    assert [event["error"] is None for event in events].count(False) == 1
    lines = tail.stdout.splitlines()
    assert len(lines) == 2
    assert f"{STREAM}:{MESSAGES + 1}" in lines[1]
    assert '"message 19"' in lines[1]
    assert [line.split()[-1] for line in grep.stdout.splitlines()] == ['11"', '13"']
    assert "stopped after 2" in grep.stderr
    assert '"text": "message 19"' in whole.stdout
    seen = json.loads(conversation.stdout)
    assert (seen["conversation"]["last_seq"], seen["last_message"]["body"]["text"]) == (10, "message 9")
    assert [member["user_id"] for member in seen["members"]] == ["ann", "bob"]


async def test_following_goes_on_with_what_is_stored_and_ends_quietly(logged: Logged) -> None:
    command = logged.command("log", "tail", "-n", "1", "-f", "--json", "-c", logged.id)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(60):
        await process.stdout.readline()
        logged.history.post(logged.history.conversations[0], "ann", "a later one")
        await logged.history.append()
        assert json.loads(await process.stdout.readline())["data"]["body"]["text"] == "a later one"
        process.send_signal(2)
        assert await process.wait() == 0
        assert await process.stderr.read() == b""


async def test_a_reader_that_leaves_is_no_error(logged: Logged) -> None:
    command = logged.command("log", "tail", "-n", "1000", "--json")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
    transport.close()  # before the first line
    async with asyncio.timeout(60):
        assert await process.wait() == 0
        assert await process.stderr.read() == b""


async def test_what_there_is_not_is_one_plain_line(logged: Logged) -> None:
    asked = [
        ("log", "show", "CONV-0:9999"),
        ("log", "tail", "--since", "yesterday"),
        ("as-of", "99", "conversation", logged.id),
    ]
    for done in await asyncio.gather(*(logged.ask(*arguments) for arguments in asked)):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
