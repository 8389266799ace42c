"""Every setting: its name, type, default, unit and meaning. The only reader of the environment.

A setting `nats_url` is the variable `RIVERRUN_NATS_URL`. `riverrun settings` prints this file's contents.
A URL may hold a password, so it may also be in a file: that which `RIVERRUN_NATS_URL_FILE` names.
"""

import difflib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

from projections.tiers.policy import WarmPolicy

PREFIX = "RIVERRUN_"
FILE_SUFFIX = "_FILE"

Check = Callable[[Any], bool]

_URL_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")


class SettingsError(ValueError):
    """A variable holds what its setting cannot be. One plain line."""

    def __init__(self, variable: str, value: str, expected: str) -> None:
        super().__init__(f"{variable}={value!r} is not valid: expected {expected}")
        self.variable = variable


def _setting(default: Any, what: str, *, unit: str = "", expected: str = "", check: Check | None = None) -> Any:
    metadata = {"what": what, "unit": unit, "expected": expected, "check": check}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _at_least(least: int, default: int, what: str, unit: str = "") -> Any:
    return _setting(
        default, what, unit=unit, expected=f"a whole number from {least}", check=lambda value: int(value) >= least
    )


def _url(default: str, what: str, *schemes: str) -> Any:
    return _setting(
        default,
        what,
        expected="a URL like " + " or ".join(f"{scheme}://…" for scheme in schemes),
        check=lambda value: urlsplit(value).scheme in schemes,
    )


def _one_of(default: str, what: str, *choices: str) -> Any:
    return _setting(default, what, expected="one of " + ", ".join(choices), check=lambda value: value in choices)


def _node_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _is_power_of_two(value: int) -> bool:
    return 1 <= value <= 1024 and value & (value - 1) == 0


def _is_warm_policy(value: str) -> bool:
    WarmPolicy.parse(value)
    return True


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process. `riverrun up` replaces the URLs and key files by those of its data directory."""

    nats_url: str = _url("nats://127.0.0.1:4222", "NATS: the log and the bus.", "nats", "tls")
    nats_monitoring_url: str = _url(
        "http://127.0.0.1:8222", "The NATS server's monitoring, asked at start whether it syncs.", "http", "https"
    )
    postgres_url: str = _url(
        "postgresql://riverrun@127.0.0.1:5432/riverrun",
        "Postgres: warm read models and snapshots.",
        "postgresql",
        "postgres",
    )
    valkey_url: str = _url(
        "redis://127.0.0.1:6379/0",
        "Valkey or Redis: hot read models, tickets, presence.",
        *("redis", "rediss", "valkey", "valkeys", "unix"),
    )
    clickhouse_url: str = _url(
        "http://127.0.0.1:8123/default", "ClickHouse: the archive.", "http", "https", "clickhouse", "chdb"
    )
    clickhouse_analyst_url: str = _url(
        "", "ClickHouse as a user who may only read, for analysts; none: they are not answered.", "http", "https"
    )
    host: str = _setting("127.0.0.1", "Address the API listens on.")
    port: int = _setting(
        8080,
        "Port the API listens on; 0: one the OS gives.",
        expected="a port, 0 to 65535",
        check=lambda value: 0 <= int(value) <= 65535,
    )
    monitoring_host: str = _setting("127.0.0.1", "Address of the monitoring listener.")
    monitoring_port: int = _setting(
        0,
        "Port of the monitoring listener: /metrics and /healthz, whatever the roles; 0: none.",
        expected="a port, 0 to 65535",
        check=lambda value: 0 <= int(value) <= 65535,
    )
    partitions: int = _setting(
        1,
        "Partitions of the log; fixed when a deployment is created.",
        expected="a power of two from 1 to 1024",
        check=_is_power_of_two,
    )
    replicas: int = _setting(
        1, "Copies of each stream in the NATS cluster.", expected="1, 3 or 5", check=lambda value: value in {1, 3, 5}
    )
    jwt_secret_file: Path | None = _setting(None, "File with the shared secret of HS256 tokens.")  # noqa: RUF009
    jwks_file: Path | None = _setting(None, "File with the public keys (JWKS) of RS256 and EdDSA tokens.")  # noqa: RUF009
    cursor_key_file: Path | None = _setting(None, "File with the key of cursors; none: made from the JWT secret.")  # noqa: RUF009
    node_id: str = _setting(
        _node_id,
        "Name of this process in the node ring; unique.",
        expected="letters, digits, - and _",
        check=lambda value: value.replace("-", "").replace("_", "").replace(".", "").isalnum(),
    )
    log_level: str = _one_of("info", "Least severe level that is logged.", "debug", "info", "warning", "error")
    log_format: str = _one_of("auto", "Form of the log; auto: text on a terminal.", "auto", "text", "json")
    allow_unsynced_log: bool = _setting(False, "Start although the log's server may lose acknowledged messages.")
    fanout_limit: int = _at_least(
        0, 8, "Members up to which events are addressed to each; above, gateways listen to the conversation."
    )
    max_sessions: int = _at_least(1, 15_000, "Live connections of one gateway.")
    max_sessions_per_user: int = _at_least(1, 20, "Live connections a user may have on one gateway.")
    session_buffer_bytes: int = _at_least(65_536, 1 << 20, "Unsent output at which a slow session is closed.", "bytes")
    ping_s: int = _at_least(1, 25, "Silence after which a session is pinged.", "s")
    writer_queue_max: int = _at_least(1, 10_000, "Commands that may wait for a partition's writer.")
    aggregate_cache_bytes: int = _at_least(1 << 20, 256 << 20, "Memory a writer keeps aggregates in.", "bytes")
    warm_months: str = _setting(
        "3",
        "Months of messages that stay in Postgres, that of today the first; 0: all; then by kind: 3,direct=12.",
        expected="a number of months, maybe with those of kinds: 3,direct=12",
        check=_is_warm_policy,
    )
    log_days: int = _at_least(0, 0, "Days of events that stay in the log behind the archive; 0: all.", "days")
    tiers_s: int = _at_least(1, 600, "Time between two rounds of the store scheduler.", "s")
    archive_s: int = _at_least(1, 2, "How far the archive may be behind in quiet times.", "s")
    sql_s: int = _at_least(1, 10, "Time an analyst's statement may take.", "s")
    sql_rows: int = _at_least(1, 100_000, "Rows of its answer.")
    sql_bytes: int = _at_least(1 << 20, 64 << 20, "Size of its answer, before it is encoded.", "bytes")
    sql_memory_bytes: int = _at_least(64 << 20, 1 << 30, "Memory it may use.", "bytes")
    drain_s: int = _at_least(0, 5, "Time given to sessions and commands to end when stopping.", "s")

    @property
    def analyst_limits(self) -> dict[str, int]:
        """What an analyst's statement may cost, as settings of ClickHouse."""
        return {
            "max_execution_time": self.sql_s,
            "max_result_rows": self.sql_rows,
            "max_result_bytes": self.sql_bytes,
            "max_memory_usage": self.sql_memory_bytes,
        }

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings of the environment (`os.environ` when none is given).

        Raises:
            SettingsError: a variable's value is not one its setting can have.
        """
        environment = os.environ if environment is None else environment
        types = get_type_hints(cls)
        values = {spec.name: _given(spec, environment) for spec in fields(cls)}
        return cls(
            **{
                spec.name: _parsed(spec, types[spec.name], text)
                for spec in fields(cls)
                if (text := values[spec.name])  # an empty variable is an absent one
            }
        )


@dataclass(frozen=True, slots=True)
class Description:
    """A setting as `riverrun settings` shows it. Passwords in URLs are masked."""

    variable: str
    default: str
    current: str
    unit: str
    what: str


def describe(settings: Settings) -> Iterator[Description]:
    """All settings, in the order of this file."""
    for spec in fields(Settings):
        default = spec.default if spec.default is not MISSING else "(host name)-(pid)"
        yield Description(
            variable=variable_of(spec.name),
            default=_shown(default),
            current=_shown(getattr(settings, spec.name)),
            unit=spec.metadata["unit"],
            what=spec.metadata["what"],
        )


def unknown_variables(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A sentence for each `RIVERRUN_*` variable that is no setting, with the nearest one that is."""
    environment = os.environ if environment is None else environment
    known = [variable_of(spec.name) for spec in fields(Settings)]
    known += [variable + FILE_SUFFIX for variable in known if variable.endswith("_URL")]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def environment_for(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process that is to have these settings, and otherwise our environment."""
    environment = os.environ if environment is None else environment
    values = ((variable_of(spec.name), getattr(settings, spec.name)) for spec in fields(Settings))
    return {
        **{name: value for name, value in environment.items() if not name.startswith(PREFIX)},
        **{variable: _text(value) for variable, value in values if value is not None},
    }


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def masked(text: str) -> str:
    """Text without the passwords of the URLs in it."""
    return _URL_PASSWORD.sub(r"\1***@", text)


def _given(spec: Field[Any], environment: Mapping[str, str]) -> str:
    """The text of a setting: its variable's, or for a URL the contents of the file it may be in."""
    variable = variable_of(spec.name)
    path = environment.get(variable + FILE_SUFFIX) if variable.endswith("_URL") else None
    if environment.get(variable) or not path:
        return environment.get(variable, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(variable + FILE_SUFFIX, path, "a readable file with the URL in it") from None


def _parsed(spec: Field[Any], kind: Any, text: str) -> Any:
    expected = spec.metadata["expected"] or _EXPECTED.get(kind, "another value")
    try:
        value = _PARSERS[_plain(kind)](text)
        is_valid = spec.metadata["check"] is None or spec.metadata["check"](value)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise SettingsError(variable_of(spec.name), masked(text), expected)
    return value


def _plain(kind: Any) -> Any:
    """`X` of `X | None`."""
    return next((choice for choice in get_args(kind) if choice is not type(None)), kind)


def _boolean(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError(text)


_PARSERS: Mapping[Any, Callable[[str], Any]] = {str: str, int: int, bool: _boolean, Path: Path}
_EXPECTED: Mapping[Any, str] = {bool: "true or false", int: "a whole number"}


def _shown(value: Any) -> str:
    return "" if value is None else masked(_text(value))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
