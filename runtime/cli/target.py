"""What commands that talk to a running server share: where it is, and the secret to mint tokens with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtime.cli import fail
from runtime.embedded.lock import is_alive
from runtime.settings import Settings, SettingsError

DEFAULT_DATA_DIR = Path(".riverrun")
JWT_SECRET = "jwt.secret"  # in a data directory  # noqa: S105
RUN_RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class Target:
    """A running server. The servers' URLs are those of the data directory, or else of the settings."""

    url: str
    jwt_secret: str
    nats_url: str
    nats_monitoring_url: str
    postgres_url: str
    valkey_url: str
    clickhouse_url: str
    partitions: int


def resolve_target(url: str | None = None, data_dir: Path | None = None) -> Target:
    """The server of `--url` and `--data-dir`.

    Args:
        url: `http://host:port`; without it, that of the server that runs on the data directory.
        data_dir: of a local server; without it `./.riverrun`, if there is one or no `url` is given.

    Ends the command with one plain line and status 2 when there is no such server or no secret for it.
    """
    settings = load_settings()
    record: dict[str, Any] = {}
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            fail(f"--url {url!r} is not a server's URL; expected http://host:port")
        url = f"{parts.scheme}://{parts.netloc}"
    folder = data_dir or DEFAULT_DATA_DIR
    if url is None or data_dir is not None or (folder / RUN_RECORD).exists():
        record = _run_record(folder, must_exist=url is None or data_dir is not None)
    return Target(
        url=url or str(record["url"]),
        jwt_secret=jwt_secret(settings, folder),
        partitions=int(record.get("partitions") or settings.partitions),
        **{
            name: str(record.get(name) or getattr(settings, name))
            for name in ("nats_url", "nats_monitoring_url", "postgres_url", "valkey_url", "clickhouse_url")
        },
    )


def load_settings() -> Settings:
    """The settings, or the end of the command with one plain line."""
    try:
        return Settings.load()
    except SettingsError as error:
        fail(str(error))


def jwt_secret(settings: Settings, data_dir: Path) -> str:
    """The shared secret: of `RIVERRUN_JWT_SECRET_FILE`, else of the data directory."""
    path = settings.jwt_secret_file or data_dir / JWT_SECRET
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        fail(f"no JWT secret: {path} does not exist; give --data-dir of a server, or RIVERRUN_JWT_SECRET_FILE")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read the JWT secret {path}: {getattr(error, 'strerror', None) or error}")
    if not secret:
        fail(f"the JWT secret {path} is empty")
    return secret


def _run_record(data_dir: Path, *, must_exist: bool) -> dict[str, Any]:
    path = data_dir / RUN_RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            fail(f"no server runs on {data_dir} ({path} does not exist); start one with `riverrun up`, or give --url")
        return {}
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path} is not a record of a running server: {error}")
    if not isinstance(record, dict) or not isinstance(record.get("url"), str):
        fail(f"{path} is not a record of a running server: there is no url in it")
    pid = record.get("pid")
    if must_exist and isinstance(pid, int) and not is_alive(pid):
        fail(f"no server runs on {data_dir} (the one with pid {pid} is gone); start one with `riverrun up`")
    return record
