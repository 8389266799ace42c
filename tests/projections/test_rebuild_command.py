"""`riverrun rebuild` on a whole Riverrun that is posted to: killed in the middle, started again, and nobody notices."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import httpx
import psycopg
import pytest
import pytest_asyncio

from projections.verification import verify
from streams.jetstream import JetStream
from tests.running import Running

WITHIN_S = 60.0
PACE_S = 0.02  # between two messages of one: there is something to be seen, and cores are left for the rebuild
DRAFTS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'draft%'"
MESSAGE = {"type": "text", "text": "while it is rebuilt"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def riverrun(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    riverrun = Running(tmp_path_factory.mktemp("rebuilt") / "data")
    await riverrun.start()
    yield riverrun
    await riverrun.stop()


class Posting:
    """Two people who post one message after the other, and read what there is.

    Attributes:
        acked: how many were. refused: what else was answered.
    """

    def __init__(self, riverrun: Running) -> None:
        self.acked = 0
        self.refused: list[tuple[int, str]] = []
        self._riverrun = riverrun
        self._run = token_hex(4)

    async def post(self, user_id: str) -> None:
        """Until cancelled."""
        headers = {"Authorization": f"Bearer {self._riverrun.token(user_id)}"}
        async with httpx.AsyncClient(base_url=self._riverrun.url, headers=headers, timeout=30) as client:
            group = {"kind": "group", "name": user_id, "members": ["cid"], "client_conversation_id": user_id}
            made = (await client.post("/v1/conversations", json=group)).json()
            path = f"/v1/conversations/{made['conversation_id']}/messages"
            number = 0
            while True:
                number += 1
                answer = await client.post(path, json={"client_msg_id": f"{self._run}-{number}", "body": MESSAGE})
                if answer.status_code == httpx.codes.CREATED:
                    self.acked += 1
                else:
                    self.refused.append((answer.status_code, answer.text))
                for page in (path, "/v1/inbox"):
                    answer = await client.get(page)
                    if answer.status_code != httpx.codes.OK:
                        self.refused.append((answer.status_code, answer.text))
                await asyncio.sleep(PACE_S)

    async def more(self, messages: int) -> None:
        """Wait until so many more were acked."""
        wanted = self.acked + messages
        async with asyncio.timeout(WITHIN_S):
            while self.acked < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def posting(riverrun: Running) -> AsyncIterator[Posting]:
    people = Posting(riverrun)
    tasks = [asyncio.create_task(people.post(user_id)) for user_id in ("ann", "bob")]
    try:
        yield people
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def command(riverrun: Running, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", *arguments, "--data-dir", str(riverrun.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def done(riverrun: Running, *arguments: str) -> tuple[int | None, str, str]:
    process = await command(riverrun, *arguments)
    async with asyncio.timeout(WITHIN_S):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def is_equal(riverrun: Running) -> None:
    """Log and read models agree."""
    servers = riverrun.run_json()
    jetstream = await JetStream.connect(servers["nats_url"], name="test")
    try:
        report = await verify(jetstream.log, servers["postgres_url"], partitions=1, wait_s=WITHIN_S)
    finally:
        await jetstream.close()
    assert [str(difference) for difference in report.differences] == []


async def drafts(riverrun: Running) -> list[str]:
    async with await psycopg.AsyncConnection.connect(riverrun.run_json()["postgres_url"]) as connection:
        return [name for (name,) in await (await connection.execute(DRAFTS)).fetchall()]


async def test_it_is_killed_and_started_again_while_everybody_posts(riverrun: Running) -> None:
    async with posting(riverrun) as people:
        await people.more(100)
        killed = await command(riverrun, "rebuild")
        async with asyncio.timeout(WITHIN_S):
            while not (left := await drafts(riverrun)):
                await asyncio.sleep(0.01)
        killed.send_signal(signal.SIGSTOP)  # it does not come to an end meanwhile
        second = await done(riverrun, "rebuild", "heads")
        assert second == (2, "", "riverrun: another rebuild, or shadow, is under way\n")
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        assert await drafts(riverrun) == left

        status, stdout, stderr = await done(riverrun, "rebuild", "--json")
        assert (status, await drafts(riverrun)) == (0, []), stderr
        assert stderr.splitlines()[-1] == "swapping"
        report = json.loads(stdout)
        assert report["equal"]
        assert report["in_force"]
        assert report["tables"]["messages"]["rows"] > 100
        await people.more(50)
    assert people.refused == []
    interrupted = [line for line in riverrun.output().splitlines() if "reading interrupted" in line]
    assert [line for line in interrupted if "no answer in" not in line] == []  # that is NATS, on a busy machine
    await is_equal(riverrun)
    status, stdout, stderr = await done(riverrun, "rebuild", "hot")
    assert (status, stdout) == (0, "the hot store begins anew\n"), stderr


async def test_a_shadow_finds_the_code_that_runs_to_be_the_code_that_runs(riverrun: Running) -> None:
    async with posting(riverrun) as people:
        await people.more(50)
        status, stdout, stderr = await done(riverrun, "rebuild", "--shadow", "--seconds", "2", "--json")
        assert status == 0, stderr
    [line] = stdout.splitlines()
    report = json.loads(line)
    assert report["equal"]
    assert report["looks"] > 1
    assert report["tables"]["messages"]["rows"] > 50
    assert await drafts(riverrun) == []
    assert people.refused == []


async def test_read_models_of_an_older_version_are_rebuilt_by_the_projector(riverrun: Running) -> None:
    async with posting(riverrun) as people:
        await people.more(50)
        async with await psycopg.AsyncConnection.connect(
            riverrun.run_json()["postgres_url"], autocommit=True
        ) as connection:
            await connection.execute("UPDATE checkpoints SET version = 0 WHERE projection = 'heads'")
            await connection.execute("UPDATE heads SET preview = 'as it was made before'")
            async with asyncio.timeout(WITHIN_S):
                while await (await connection.execute("SELECT min(version) FROM checkpoints")).fetchone() == (0,):
                    await asyncio.sleep(0.05)
        await people.more(50)
    assert people.refused == []
    await is_equal(riverrun)


async def test_an_unknown_projection_is_refused_in_one_line(tmp_path: Path) -> None:
    status, stdout, stderr = await done(Running(tmp_path), "rebuild", "tails")
    assert (status, stdout, stderr.count("\n")) == (2, "", 1)
    assert "there is no projection 'tails'" in stderr
