"""`riverrun verify` as operators see it: its output and its exit status, against a real log."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from psycopg_pool import AsyncConnectionPool

from domain.events import ReadMoved
from projections.progress import Progress
from streams.jetstream import JetStream
from streams.topology import Topology
from tests.conftest import NatsServerFactory
from tests.projections.history import USERS, History, UserHistory
from tests.projections.workers import applied, projections, running


@pytest_asyncio.fixture(loop_scope="session")
async def data_dir(
    tmp_path: Path, nats_server: NatsServerFactory, database: str, pool: AsyncConnectionPool
) -> AsyncIterator[Path]:
    """A data dir whose record names servers that hold one projected conversation and one projected user."""
    server = await nats_server()
    jetstream = await JetStream.connect(server.url, name="test")
    await jetstream.log.ensure(Topology())
    history = History(jetstream.log)
    history.post(history.create("ann", "bob"), "ann", "hello")
    users = UserHistory(jetstream.log)
    users.happened("a.b", ReadMoved, conversation_id=int(history.conversations[0].id), seq=1)
    last, last_of_users = await history.append(), await users.append()
    async with running(jetstream.log, pool, Progress(), projections()) as workers:
        await applied(workers, last)
        await applied(workers, last_of_users, USERS)
    record = {"url": "http://127.0.0.1:1", "nats_url": server.url, "postgres_url": database}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "jwt.secret").write_text("s" * 32)
    yield tmp_path
    await jetstream.close()


async def verify(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.cli", "verify", "--wait", "1s", *options]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)


async def test_equal_is_0_different_is_1_with_the_conversation_named(data_dir: Path, pool: AsyncConnectionPool) -> None:
    done = await verify("--data-dir", str(data_dir))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "equal"), done.stderr
    async with pool.connection() as connection:
        cursor = await connection.execute("DELETE FROM messages RETURNING conversation_id")
        [(conversation_id,)] = await cursor.fetchall()
    done = await verify("--data-dir", str(data_dir))
    assert done.returncode == 1
    assert str(conversation_id) in done.stdout
    done = await verify("--data-dir", str(data_dir), "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["equal"] is False
    assert report["differences"] == [
        {
            "where": "messages",
            "conversation_id": str(conversation_id),
            "user_id": None,
            "what": "1 rows in the log, 0 in the read model",
        }
    ]


async def test_a_difference_of_a_user_names_the_user(data_dir: Path, pool: AsyncConnectionPool) -> None:
    async with pool.connection() as connection:
        await connection.execute("UPDATE markers SET read_seq = 2")
    done = await verify("--data-dir", str(data_dir))
    assert done.returncode == 1
    assert "markers: user a.b: 1 rows, with another content" in done.stdout.splitlines()


async def test_what_cannot_be_compared_is_2_in_one_plain_line(data_dir: Path) -> None:
    record = json.loads((data_dir / "run.json").read_text())
    for wrong in ({"postgres_url": "postgresql://nobody@127.0.0.1:1/none"}, {"nats_url": "nats://127.0.0.1:1"}):
        (data_dir / "run.json").write_text(json.dumps(record | wrong))
        done = await verify("--data-dir", str(data_dir))
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stdout == ""
    done = await verify("--data-dir", str(data_dir / "nothing"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
