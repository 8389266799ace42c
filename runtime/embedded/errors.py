"""What can go wrong with embedded servers. Each message is one plain line for whoever typed the command.

EmbeddedError
├── DataDirInUse      another Riverrun owns the data directory
├── DataDirUnusable   it cannot be read or written
└── ServerFailed      a server did not start
"""

from pathlib import Path


class EmbeddedError(Exception):
    """The root of what starting the embedded servers can end in."""


class DataDirInUse(EmbeddedError):
    """Another process owns the data directory; `pid` says which (0: it did not say)."""

    def __init__(self, data_dir: Path, pid: int, what: str = "Riverrun") -> None:
        super().__init__(f"{data_dir} is in use by {what} with pid {pid or 'unknown'}; stop it first")
        self.pid = pid


class DataDirUnusable(EmbeddedError):
    """The data directory cannot be read or written."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        super().__init__(f"cannot use the data directory {data_dir}: {reason}")


class ServerFailed(EmbeddedError):
    """A server did not start; `output` is the end of what it had to say."""

    def __init__(self, name: str, reason: str, output: str = "") -> None:
        said = " | ".join(line.strip() for line in output.splitlines() if line.strip())
        super().__init__(f"{name} did not start: {reason}" + (f"; it said: {said}" if said else ""))
        self.name = name
        self.output = output
