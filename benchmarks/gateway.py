"""A gateway in a process of its own, beside the deployment whose servers it shares, and what the kernel says of it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.deployment import Deployment

STOP_S: Final = 30.0
READY: Final = "Riverrun serves api at "


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process, in KiB: what it has in RAM, and its share of that where pages are shared with others."""

    rss_kib: int
    pss_kib: int

    @classmethod
    def of(cls, pid: int) -> "Memory":
        """As it is now."""
        fields = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0])
        return cls(fields["Rss"], fields["Pss"])


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    # After the name in brackets, which may hold spaces: fields 14 and 15 of the line, counted from 1.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """Where it is."""

    url: str
    pid: int


@contextmanager
def gateway(deployment: Deployment) -> Iterator[GatewayProcess]:
    """Start `riverrun serve --roles api` on a deployment's servers, and stop it afterwards.

    Raises:
        RuntimeError: it did not start; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-") as folder:
        secret, log = Path(folder) / "jwt.secret", Path(folder) / "log"
        secret.write_text(deployment.jwt_secret)
        secret.chmod(0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")} | {
            "RIVERRUN_NATS_URL": deployment.nats_url,
            "RIVERRUN_POSTGRES_URL": deployment.postgres_url,
            "RIVERRUN_VALKEY_URL": deployment.valkey_url,
            "RIVERRUN_JWT_SECRET_FILE": str(secret),
            "RIVERRUN_ALLOW_UNSYNCED_LOG": "true",  # the deployment, which writes to it, has looked
        }
        command = [sys.executable, "-m", "runtime.cli", "serve", "--roles", "api", "--port", "0"]
        with (
            log.open("wb") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line.startswith(READY):
                    raise RuntimeError("the gateway did not start:\n" + log.read_text(errors="replace")[-4000:])
                yield GatewayProcess(line.removeprefix(READY).strip(), process.pid)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
