"""`riverrun up` from outside: starting, refusing, stopping, and starting again after everything was killed."""

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

from runtime.embedded.lock import is_alive
from tests.running import Running

WAIT_S = 30.0


async def up(data_dir: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Run `riverrun up` where it is expected to end by itself: exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", "up", "--data-dir", str(data_dir), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def assert_refused(result: tuple[int | None, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out) == (2, ""), result
    assert err.startswith("riverrun: "), err
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


async def test_it_runs_refuses_a_second_and_survives_being_killed(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    await running.start()
    try:
        record = running.run_json()
        assert set(record["pids"]) == {"nats-server", "postgres", "valkey", "clickhouse"}
        assert list(record["monitoring_urls"].values()) == [running.url]  # no port is set for the listener
        assert stat.S_IMODE((tmp_path / "data" / "run.json").stat().st_mode) == 0o600
        assert f"Riverrun is ready at {running.url}" in running.output()

        assert_refused(await up(tmp_path / "data", "--port", "0"), f"in use by Riverrun with pid {record['pid']}")
        assert running.run_json() == record
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.url}/readyz")).status_code == 200

        await running.kill()
        await running.start()
        again = running.run_json()
        assert again["pid"] != record["pid"]
        assert not any(is_alive(pid) for pid in record["pids"].values())

        assert await running.stop() == 0
        assert not any(is_alive(pid) for pid in again["pids"].values())
        assert not (tmp_path / "data" / "run.json").exists()
    finally:
        if running.alive:
            await running.kill()


async def test_an_interrupt_while_it_starts_ends_it_cleanly(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", "up", "--port", "0", "--data-dir", str(tmp_path / "data")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(WAIT_S):
        while not (tmp_path / "data" / "lock").exists():
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "Traceback" not in output.decode()


async def test_a_port_in_use_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await up(tmp_path / "data", "--port", str(port))
    assert_refused(result, f"cannot listen on 127.0.0.1:{port}: address already in use")
    assert not (tmp_path / "data").exists()


async def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(await up(tmp_path / "file", "--port", "0"), "cannot use the data directory", "File exists")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_data_dir_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert_refused(await up(tmp_path / "data", "--port", "0"), "cannot use the data directory", "Permission denied")
