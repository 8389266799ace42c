"""The embedded servers: real ones, killed, planted with traps, and run as others."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from runtime.embedded import postgres
from runtime.embedded.child import Account
from runtime.embedded.errors import DataDirInUse, DataDirUnusable, ServerFailed
from runtime.embedded.lock import is_alive
from runtime.embedded.servers import EmbeddedServers

NOBODY = 65534
WAIT_S = 20.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

# Starts servers in a process of its own, says its servers' pids, and waits to be killed.
HOLDER = """
import asyncio, json, sys
from pathlib import Path
from runtime.embedded.servers import EmbeddedServers

async def main():
    servers = EmbeddedServers(Path(sys.argv[1]), with_clickhouse=False)
    await servers.start()
    print(json.dumps(servers.pids), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop()

try:
    asyncio.run(main())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[EmbeddedServers]:
    servers = EmbeddedServers(data_dir, with_clickhouse=False)
    await servers.start()
    try:
        yield servers
    finally:
        await servers.stop()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def hold(data_dir: Path, python: str = sys.executable, uid: int | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [python, "-c", HOLDER, str(data_dir)],
        cwd="/",
        env=surroundings(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=uid,
        group=uid,
    )


def surroundings() -> dict[str, str]:
    """What any Python of our version needs to run our code and servers."""
    paths = (str(Path(__file__).parents[2]), sysconfig.get_path("purelib"))
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


def python_for(uid: int) -> str:
    """A Python of our version that a user can run, with our code."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [python, "-c", "import runtime.embedded.servers"]
        try:
            subprocess.run(command, check=True, capture_output=True, cwd="/", env=surroundings(), user=uid, group=uid)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("an ordinary user can run no Python of this version here, or not read this checkout")


def held_pids(process: "subprocess.Popen[str]") -> dict[str, int]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"it ended: {process.communicate()[1]}")
    pids: dict[str, int] = eval(line)
    return pids


async def select(url: str, query: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(query)
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def listens(pid: int, port: int) -> bool:
    """Whether a process owns the listening socket of a port, by the kernel's own word."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {fields[9] for line in lines if (fields := line.split())[1].endswith(f":{port:04X}") and fields[3] == "0A"}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    return any(f"socket:[{inode}]" in held for inode in inodes)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder whose parent only its owner may enter, with spaces, a quote and a long name in its path."""
    with tempfile.TemporaryDirectory(prefix='it\'s a "folder" ') as folder:
        parent = Path(folder)
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
        yield parent / ("deep " * 20).strip() / "data"


async def test_each_server_owns_the_port_of_its_url(servers: EmbeddedServers) -> None:
    for name, url in (
        ("nats-server", servers.nats_url),
        ("nats-server", servers.nats_monitoring_url),
        ("valkey", servers.valkey_url),
        ("postgres", servers.postgres_url),
    ):
        port = int(url.rpartition(":")[2].partition("/")[0])
        assert listens(servers.pids[name], port), f"{name} does not own port {port}"


async def test_the_log_syncs_before_it_acknowledges(servers: EmbeddedServers) -> None:
    import httpx

    async with httpx.AsyncClient() as client:
        config = (await client.get(f"{servers.nats_monitoring_url}/jsz")).json()["config"]
    assert config["sync_always"] is True


async def test_nobody_enters_without_the_password(servers: EmbeddedServers) -> None:
    url = servers.postgres_url
    password = url.partition("riverrun:")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await select(url.replace(password, "wrong"), "SELECT 1")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(servers.valkey_url.split(":")[-1].split("/")[0]))
    writer.write(b"PING\r\n")
    assert (await reader.readline()).startswith(b"-NOAUTH")
    writer.close()
    await writer.wait_closed()


async def test_secrets_and_configurations_are_their_owners_alone(servers: EmbeddedServers) -> None:
    for path in ("nats/password", "nats/nats.conf", "valkey/password", "valkey/valkey.conf", "postgres/password"):
        assert stat.S_IMODE((servers.data_dir / path).stat().st_mode) == 0o600, path


async def test_a_closed_parent_folder_stays_closed_and_serves(closed_folder: Path) -> None:
    async with running(closed_folder) as servers:
        await select(servers.postgres_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with running(closed_folder) as servers:
        assert await select(servers.postgres_url, "SELECT answer FROM kept") == 42
    assert stat.S_IMODE(closed_folder.parents[1].stat().st_mode) == 0o700
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700


async def test_postgres_keeps_text_as_utf8_whatever_the_locale(servers: EmbeddedServers) -> None:
    assert await select(servers.postgres_url, "SHOW server_encoding") == "UTF8"
    assert await select(servers.postgres_url, "SELECT upper('ä')") == "Ä"


async def test_two_data_dirs_run_side_by_side(servers: EmbeddedServers, tmp_path: Path) -> None:
    async with running(tmp_path / "data") as second:
        assert not set(second.pids.values()) & set(servers.pids.values())
        assert await select(second.postgres_url, "SELECT 1") == 1
        assert await select(servers.postgres_url, "SELECT 1") == 1


async def test_a_killed_server_is_started_again_on_its_port(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "data") as servers:
        urls = (servers.nats_url, servers.postgres_url, servers.valkey_url)
        await select(servers.postgres_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        before = servers.pids
        restarted: list[dict[str, int]] = []
        servers.on_restart(lambda: restarted.append(servers.pids))
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(restarted) == len(before))
        assert not set(servers.pids.values()) & set(before.values())
        assert set(servers.pids) == set(before)
        assert urls == (servers.nats_url, servers.postgres_url, servers.valkey_url)
        assert await select(servers.postgres_url, "SELECT answer FROM kept") == 42
    said = capfd.readouterr().out + caplog.text
    for name in before:
        assert f"{name} stopped (signal 9), started again in " in said


async def test_no_server_outlives_a_killed_parent_and_nothing_is_lost(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running(data_dir) as servers:
        await select(servers.postgres_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with hold(data_dir) as holder:
        pids = await asyncio.to_thread(held_pids, holder)
        holder.kill()
        # At once, while the orphans may still be dying: the new servers wait for them to be gone.
        async with running(data_dir) as servers:
            assert not any(is_alive(pid) for pid in pids.values())
            assert await select(servers.postgres_url, "SELECT answer FROM kept") == 42


async def test_everything_killed_at_once_starts_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with hold(data_dir) as holder:
        pids = await asyncio.to_thread(held_pids, holder)
        for pid in (holder.pid, *pids.values()):
            os.kill(pid, signal.SIGKILL)
        async with running(data_dir) as servers:
            assert await select(servers.postgres_url, "SELECT 1") == 1


async def test_a_data_dir_in_use_is_refused_by_the_pid_of_its_owner(tmp_path: Path) -> None:
    with hold(tmp_path / "data") as holder:
        await asyncio.to_thread(held_pids, holder)
        with pytest.raises(DataDirInUse, match=rf"is in use by Riverrun with pid {holder.pid};") as refusal:
            await EmbeddedServers(tmp_path / "data", with_clickhouse=False).start()
        assert refusal.value.pid == holder.pid
        assert holder.poll() is None
        holder.communicate("")


async def test_a_stale_postmaster_pid_of_a_living_process_does_not_hinder(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running(data_dir):
        pass
    cluster = data_dir / "postgres" / "cluster" / "data"
    owner = cluster.stat()
    bystander = subprocess.Popen(["/bin/sleep", "60"], user=owner.st_uid, group=owner.st_gid)
    try:
        pid_file = cluster / "postmaster.pid"
        pid_file.write_text(f"{bystander.pid}\n/elsewhere\n1700000000\n5432\n\n127.0.0.1\n\nready\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        async with running(data_dir) as servers:
            assert await select(servers.postgres_url, "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_postgres_started_by_hand_on_the_cluster_is_left_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running(data_dir):
        pass
    cluster = data_dir / "postgres" / "cluster" / "data"
    stranger = subprocess.Popen(["/bin/sleep", "60"], cwd=cluster)
    try:
        (cluster / "postmaster.pid").write_text(f"{stranger.pid}\n")
        with pytest.raises(DataDirInUse, match=f"in use by a Postgres server with pid {stranger.pid}"):
            await EmbeddedServers(data_dir, with_clickhouse=False).start()
        assert (cluster / "postmaster.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "data" / "postgres" / "cluster" / "data.new" / "base"
    draft.mkdir(parents=True)
    (draft / "half").write_text("killed in the middle")
    async with running(tmp_path / "data") as servers:
        assert await select(servers.postgres_url, "SELECT 1") == 1


async def test_what_is_no_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirUnusable, match=r"^cannot use the data directory [^\n]+: [^\n]+$"):
        await EmbeddedServers(tmp_path / "file", with_clickhouse=False).start()


@needs_root
async def test_an_ordinary_user_runs_them_and_cannot_take_anothers_directory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, roots = Path(folder) / "home", Path(folder) / "root's"
        os.chmod(folder, 0o755)
        for path in (home, roots):
            path.mkdir(mode=0o700)
        os.chown(home, NOBODY, NOBODY)
        python = python_for(NOBODY)
        with hold(home / "data", python, NOBODY) as holder:
            pids = await asyncio.to_thread(held_pids, holder)
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids.values()} == {NOBODY}
            holder.communicate("")
        assert not any(is_alive(pid) for pid in pids.values())
        with hold(roots / "data", python, NOBODY) as holder:
            _, said = await asyncio.to_thread(holder.communicate, "")
        assert said.startswith("DataDirUnusable: cannot use the data directory")
        assert said.rstrip().endswith("Permission denied")


async def test_a_directory_moved_elsewhere_keeps_its_data(tmp_path: Path) -> None:
    async with running(tmp_path / "before") as servers:
        await select(servers.postgres_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    shutil.move(tmp_path / "before", tmp_path / "after")
    async with running(tmp_path / "after") as servers:
        assert await select(servers.postgres_url, "SELECT answer FROM kept") == 42


@needs_root
def test_programs_that_postgres_user_cannot_reach_are_copied_to_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr(postgres, "CACHE", Path(folder) / "cache")
        monkeypatch.setattr(postgres, "_reachable", lambda _: False)
        for _ in range(2):
            programs = postgres._programs(Account(NOBODY, NOBODY))
            assert programs.is_relative_to(folder)
            for program in ("postgres", "initdb", "psql"):
                command = [str(programs / program), "--version"]
                result = subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, text=True, check=True)
                assert "18." in result.stdout
        assert [path.name[0] for path in (Path(folder) / "cache").iterdir()] == ["e"], "a draft was left behind"


@needs_root
def test_a_cache_that_others_may_write_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(postgres, "CACHE", Path(folder))
        monkeypatch.setattr(postgres, "_reachable", lambda _: False)
        programs = postgres._programs(Account(NOBODY, NOBODY))
        programs.parents[2].chmod(0o777)
        with pytest.raises(ServerFailed, match="is not safely root's; remove it"):
            postgres._programs(Account(NOBODY, NOBODY))
