"""ClickHouse in process: opened in a process of its own, for chDB takes 400 MB and never gives them back."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio, json, sys
from runtime.embedded.clickhouse import ClickHouse

async def main():
    house = ClickHouse(sys.argv[1])
    house.open()
    opened_at_once = house.is_ready
    await house.ready()
    await house.query(
        "INSERT INTO events (stream, sequence, subject, type, version, occurred_at, actor, headers, data) "
        "VALUES ('CONV-0', 1, 'conv.0.1', 'message.posted', 1, '2026-11-23 21:00:00.123', 'alice', "
        "{'Rr-Type': 'message.posted'}, unhex('82ff00'))"
    )
    row = (await house.query("SELECT count(), any(headers['Rr-Type']), any(hex(data)) FROM events"))[0]
    comments = await house.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'events' AND comment = ''"
    )
    applied = await house.query("SELECT name FROM schema_migrations")
    try:
        await house.query("SELECT nonsense")
        refused = ""
    except Exception as error:
        refused = str(error)
    await house.close()
    await house.close()
    print(json.dumps([opened_at_once, list(row), len(comments), [name for (name,) in applied], "nonsense" in refused]))

asyncio.run(main())
"""


def test_it_migrates_once_and_a_block_inserted_again_after_a_restart_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "click house"
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, f"chdb://{folder}"], capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stderr
        opened_at_once, row, uncommented, applied, refused = json.loads(result.stdout)
        assert not opened_at_once
        assert row == [1, "message.posted", "82FF00"]
        assert uncommented == 0
        assert applied == ["0001_events.sql"]
        assert refused
