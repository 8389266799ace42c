"""`riverrun tiers` as operators see it, where the archive cannot be reached."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg_pool import AsyncConnectionPool

from streams.memory import MemoryLog
from tests.projections.archived import ColdStore
from tests.projections.test_tiers import a_year
from tests.projections.workers import Project


@pytest.mark.usefixtures("months")
async def test_it_shows_what_is_warm_and_says_what_it_cannot_see(
    tmp_path: Path, pool: AsyncConnectionPool, database: str, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    await a_year(log, project, store)
    record = {"url": "http://127.0.0.1:1", "postgres_url": database, "clickhouse_url": "http://127.0.0.1:1/default"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "jwt.secret").write_text("s" * 32)

    async def tiers(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runtime.cli", "tiers", *arguments, "--data-dir", str(tmp_path)]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)

    done, moved = await asyncio.gather(tiers("--json"), tiers("run", "--warm-months", "1"))
    shown = json.loads(done.stdout)
    messages = [place for place in shown["places"] if place["table"] == "messages"]
    assert [place["part"] for place in messages] == [f"2026-{month:02}" for month in range(2, 7)]
    assert sum(place["rows"] for place in messages) == 40
    assert shown["per_million_messages"]["warm"]["bytes"] > 0
    assert "refused" in shown["cold_error"]
    at_work, error = moved.stderr.splitlines()
    assert (moved.returncode, at_work.partition(":")[0]) == (2, "messages 2026-02")
    assert "refused" in error
