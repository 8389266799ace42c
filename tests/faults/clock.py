"""A process with a wrong clock. Started as a script, it runs a Python module whose clock is off by what a file says.

    python -m tests.faults.clock OFFSET_FILE MODULE ARGUMENTS…

The file holds nanoseconds, as 8 bytes; they may change while the module runs: then its clock jumps. What is changed is
`time.time` and `time.time_ns`, where Riverrun reads the time of day; monotonic time is not touched, as by no clock.
"""

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import Final

FORMAT: Final = "<q"


class Offset:
    """How far a clock is off: for who sets it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, seconds: float) -> None:
        """Let the clock jump. In place: the process that reads it has the file mapped."""
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(struct.pack(FORMAT, round(seconds * 1e9)))


def mislead(path: str) -> None:
    """Make this process's clock wrong."""
    with open(path, "rb") as file:
        offset = mmap.mmap(file.fileno(), struct.calcsize(FORMAT), access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(struct.unpack(FORMAT, offset[:])[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def main(arguments: list[str]) -> None:
    """Run a module with a wrong clock."""
    path, module, *rest = arguments
    mislead(path)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
