"""`riverrun verify --chain` as operators see it: bytes are flipped in files of the log and of the archive."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from psycopg_pool import AsyncConnectionPool

from projections.archive.clickhouse import ClickHouse
from projections.progress import Progress
from streams.jetstream import JetStream
from streams.topology import Topology
from tests.archive.archiving import archive_all
from tests.conftest import NatsServerFactory
from tests.projections.history import STREAM, chat
from tests.projections.workers import applied, projections, running
from tests.runtime.clickhouses import clickhouse_server

MESSAGES = 30


def flip(file: Path, place: int) -> None:
    """One bit."""
    stored = bytearray(file.read_bytes())
    stored[place] ^= 1
    file.write_bytes(stored)


async def test_a_flipped_byte_is_named_with_its_store_and_its_place(
    tmp_path: Path, nats_server: NatsServerFactory, database: str, pool: AsyncConnectionPool
) -> None:
    server = await nats_server()
    jetstream = await JetStream.connect(server.url, name="test")
    await jetstream.log.ensure(Topology())
    history = chat(jetstream.log, MESSAGES)
    last = await history.append()
    async with running(jetstream.log, pool, Progress(), projections()) as workers:
        await applied(workers, last)
    async with clickhouse_server(tmp_path) as clickhouse:
        archive = ClickHouse(clickhouse.url)
        await archive_all(jetstream.log, archive)
        [[part]] = await archive.query("SELECT path FROM system.parts WHERE active AND table = 'memberships'")
        await archive.close()
        urls = {"nats_url": server.url, "postgres_url": database, "clickhouse_url": clickhouse.url}
        (tmp_path / "run.json").write_text(json.dumps({"url": "http://127.0.0.1:1", **urls}))
        (tmp_path / "jwt.secret").write_text("s" * 32)

        async def verify(*options: str) -> subprocess.CompletedProcess[str]:
            arguments = ("verify", "--chain", *options, "--data-dir", str(tmp_path))
            command = [sys.executable, "-m", "runtime.cli", *arguments]
            return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)

        done = await verify("--json")
        assert (done.returncode, json.loads(done.stdout)["found"]) == (0, []), done
        (tmp_path / "kept.json").write_text(done.stdout)

        await jetstream.close()
        await server.child.stop()
        [block] = [file for file in (tmp_path / "nats-1").rglob("*.blk") if b"message 17" in file.read_bytes()]
        flip(block, block.read_bytes().find(b"message 17"))
        await server.child.start()
        async with pool.connection() as connection:
            await connection.execute("UPDATE messages SET sender_id = 'Ann' WHERE seq = 4")
        flip(Path(part) / "data.bin", (Path(part) / "data.bin").stat().st_size // 2)
        done = await verify("--against", str(tmp_path / "kept.json"))
    id_ = history.conversations[0].id
    assert done.returncode == 1
    assert f"log: {STREAM}:18 conversation {id_} version 18: it is missing, and the archive has it" in done.stdout
    changed = f"warm messages: {STREAM}:5 conversation {id_} seq 4: its sender_id is not what the event says"
    assert changed in done.stdout
    assert f"archive memberships: {STREAM}:1: the file of part" in done.stdout
    assert "archive messages:" not in done.stdout
