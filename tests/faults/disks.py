"""Disks of a test's own: ext4 in a file, mounted through a loop device, that fill up and lose their power.

Power is cut by ext4's own way of being shut down without a flush (`EXT4_IOC_SHUTDOWN`): from that moment nothing more
reaches the device, whatever the page cache holds, the journal included. Mounted again, the file system is what was
flushed by then and nothing else. It needs root, `mount`, `losetup` and `mkfs.ext4`.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # linux/fs: _IOR('X', 125, __u32)
WITHOUT_FLUSHING: Final = 2
TOOLS: Final = ("mount", "umount", "losetup", "mkfs.ext4")
MIB: Final = 1 << 20


class CannotMount(Exception):
    """This machine cannot have disks of a test's own; says what is missing."""


def check_mountable() -> None:
    """Raises CannotMount where a disk cannot be made."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=path) is None]:
        raise CannotMount(f"not installed: {', '.join(missing)} (on Debian: apt install e2fsprogs mount)")
    if os.geteuid() != 0:
        raise CannotMount("mounting a disk needs root")


class Disk:
    """A file system of its own. Make it, and remove it.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image

    @classmethod
    def make(cls, image: Path, path: Path, *, size_mib: int) -> "Disk":
        """Make a disk in a file and mount it.

        Raises:
            CannotMount: this machine cannot.
        """
        check_mountable()
        with image.open("wb") as file:
            file.truncate(size_mib * MIB)
        # Nothing kept for root, so that full is full, and everything made now, so that nothing is done later.
        eager = "lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-m", "0", "-E", eager, str(image))
        path.mkdir(parents=True, exist_ok=True)
        disk = cls(image, path)
        disk.mount()
        return disk

    def mount(self) -> None:
        """Mount it, as it is."""
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        """Unmount it. Nobody may have a file open there."""
        _run("umount", str(self.path))

    def remove(self) -> None:
        """Unmount it, also when something is still open there, and delete it."""
        if os.path.ismount(self.path):
            _run("umount", "--lazy", str(self.path))
        self._image.unlink(missing_ok=True)

    def lose_power(self) -> None:
        """From now on nothing is read or written: what was not flushed is gone when it is mounted again."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(fd)

    def fill(self) -> None:
        """Leave no room at all."""
        filler = self.path / "filler"
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            free_bytes = _free_bytes(fd)
            while free_bytes:
                try:
                    os.posix_fallocate(fd, os.fstat(fd).st_size, free_bytes)
                except OSError:
                    free_bytes //= 2  # the room there is counts what the file system needs for itself
        finally:
            os.close(fd)

    def make_room(self) -> None:
        """Take back what `fill` did."""
        (self.path / "filler").unlink(missing_ok=True)


def _free_bytes(fd: int) -> int:
    about = os.fstatvfs(fd)
    return about.f_bavail * about.f_frsize


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise CannotMount(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
