"""The Riverrun under measurement: `riverrun up` on a temporary directory, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.cli.target import RUN_RECORD, resolve_target
from runtime.tokens import mint

START_S: Final = 120.0
STOP_S: Final = 30.0
TOKEN_TTL_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where it is, and its servers, on which the floors are measured.

    Attributes:
        pids: of its processes by name: `riverrun`, and the servers as its run record names them.
    """

    url: str
    nats_url: str
    postgres_url: str
    valkey_url: str
    jwt_secret: str
    data_dir: Path
    pids: Mapping[str, int]

    def token(self, user_id: str) -> str:
        """A user's token."""
        return mint(user_id, ttl_s=TOKEN_TTL_S, admin=False, secret=self.jwt_secret)


@contextmanager
def deployed(environment: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    """Start one, and stop it and delete its data afterwards.

    Args:
        environment: settings, as `RIVERRUN_*` variables; none are taken from our own environment.

    Raises:
        RuntimeError: it did not start; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-", ignore_cleanup_errors=True) as folder:
        data_dir, output = Path(folder) / "data", Path(folder) / "output"
        command = [sys.executable, "-m", "runtime.cli", "up", "--port", "0", "--data-dir", str(data_dir)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
        whole = {**inherited, **(environment or {})}
        with output.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=whole) as process:
            try:
                _ready(process, data_dir / RUN_RECORD, output)
                target = resolve_target(None, data_dir)
                pids = {"riverrun": process.pid, **json.loads((data_dir / RUN_RECORD).read_text())["pids"]}
                yield Deployment(
                    target.url,
                    target.nats_url,
                    target.postgres_url,
                    target.valkey_url,
                    target.jwt_secret,
                    data_dir,
                    pids,
                )
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _ready(process: subprocess.Popen[bytes], run_record: Path, output: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            record: dict[str, Any] = json.loads(run_record.read_text())
            with urllib.request.urlopen(f"{record['url']}/readyz", timeout=2):
                return
        except (OSError, ValueError, KeyError, urllib.error.URLError):
            time.sleep(0.1)
    raise RuntimeError("riverrun up did not become ready:\n" + output.read_text(errors="replace")[-4000:])
