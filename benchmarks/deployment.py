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
from collections.abc import Iterator
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
    """Where it is, and its servers, on which the floors are measured."""

    url: str
    nats_url: str
    postgres_url: str
    jwt_secret: str

    def token(self, user_id: str) -> str:
        """A user's token."""
        return mint(user_id, ttl_s=TOKEN_TTL_S, admin=False, secret=self.jwt_secret)


@contextmanager
def deployed() -> Iterator[Deployment]:
    """Start one, and stop it and delete its data afterwards.

    Raises:
        RuntimeError: it did not start; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-", ignore_cleanup_errors=True) as folder:
        data_dir, output = Path(folder) / "data", Path(folder) / "output"
        command = [sys.executable, "-m", "runtime.cli", "up", "--port", "0", "--data-dir", str(data_dir)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
        with output.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
            try:
                _ready(process, data_dir / RUN_RECORD, output)
                target = resolve_target(None, data_dir)
                yield Deployment(target.url, target.nats_url, target.postgres_url, target.jwt_secret)
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
