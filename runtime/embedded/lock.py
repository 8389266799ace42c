"""Who owns a data directory: an advisory lock on `DIR/lock`, which names the owner.

The servers inherit the lock. After `kill -9` of Riverrun it is free only when the last of them is gone, so two
generations of servers never meet on the same files, and whoever holds it knows that none of its own is alive.
"""

import asyncio
import fcntl
import os
from pathlib import Path

from runtime.embedded.errors import DataDirInUse

LEFTOVERS_GONE_S = 10.0  # orphaned servers die by signal within milliseconds; a Postgres backend in I/O may take longer
OWNER_GONE_S = 1.5  # a killed process seems alive until the kernel has given back its memory
POLL_S = 0.02


class DataDirLock:
    """An exclusive claim on a data directory, held from `acquire` to `release` or the end of the process."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor that holds the lock, for the servers to inherit."""
        return self._fd

    async def acquire(self) -> None:
        """Take the lock, waiting (bounded) for orphaned servers of a killed owner to be gone.

        Raises:
            DataDirInUse: a living process owns it.
            OSError: the lock file cannot be opened.
        """
        fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await self._wait(fd)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    async def _wait(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while not _try_lock(fd):
            owner = _owner(fd)
            patience_s = OWNER_GONE_S if is_alive(owner) else LEFTOVERS_GONE_S
            if loop.time() - began_at > patience_s:
                raise DataDirInUse(self._data_dir, owner)
            await asyncio.sleep(POLL_S)

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._fd >= 0:
            # Named by nobody from here on, so that a server still dying is not taken for a living owner.
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> int:
    try:
        return int(os.pread(fd, 32, 0))
    except ValueError:
        return 0  # empty: the owner is between taking the lock and saying so, or has just released it


def is_alive(pid: int) -> bool:
    """Whether a process has this pid, and has not ended already."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """A killed process keeps its pid until its parent asks for it, but holds nothing any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"
