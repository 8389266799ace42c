"""The command line from outside: tokens, targets, settings, and plain errors."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from runtime.secret_file import load_or_create_secret
from runtime.tokens import mint


def riverrun(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": root, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_refused(result: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """Exit status 2, nothing on stdout, and one plain line that says all the words."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("riverrun: ")
    for word in words:
        assert word in result.stderr


def test_a_token_says_who_until_when_and_what(tmp_path: Path) -> None:
    secret = load_or_create_secret(tmp_path / "jwt.secret")
    printed = riverrun("token", "--user", "alice", "--ttl", "2h", "--admin", "--data-dir", str(tmp_path), cwd=tmp_path)
    claims = jwt.decode(printed.stdout.strip(), secret, algorithms=["HS256"])
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == ("alice", "admin", 7200)


def test_a_token_without_admin_has_no_scope(tmp_path: Path) -> None:
    secret = load_or_create_secret(tmp_path / "key")
    printed = riverrun("token", "--user", "bob", cwd=tmp_path, RIVERRUN_JWT_SECRET_FILE=str(tmp_path / "key"))
    claims = jwt.decode(printed.stdout.strip(), secret, algorithms=["HS256"])
    assert set(claims) == {"sub", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 86400


def test_a_minted_token_is_worth_nothing_under_another_secret() -> None:
    token = mint("alice", ttl_s=60, admin=False, secret="s" * 32)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, "t" * 32, algorithms=["HS256"])


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    made = load_or_create_secret(tmp_path / "secret")
    assert load_or_create_secret(tmp_path / "secret") == made
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_an_empty_secret_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "jwt.secret").write_text("\n")
    assert_refused(riverrun("token", "--user", "a", "--data-dir", ".", cwd=tmp_path), "jwt.secret is empty")
    with pytest.raises(ValueError, match="is empty"):
        load_or_create_secret(tmp_path / "jwt.secret")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("token", "--user", "a b"), ("--user 'a b'", "not a user id")),
        (("token", "--user", ""), ("not a user id",)),
        (("token", "--user", "x" * 65), ("not a user id",)),
        (("token", "--user", "a", "--ttl", "soon"), ("--ttl 'soon'", "90s")),
        (("token", "--user", "a", "--ttl", "0"), ("--ttl '0'",)),
        (("token", "--user", "a"), ("no JWT secret", "--data-dir")),
        (("serve", "--roles", "api,rooms"), ("not in this release: rooms",)),
        (("serve", "--roles", "cook,api"), ("no such role: cook", "writer")),
        (("serve", "--roles", ","), ("--roles names none of",)),
        (("serve", "--roles", "api"), ("RIVERRUN_JWT_SECRET_FILE",)),
    ],
)
def test_a_wrong_argument_gives_one_plain_line(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(riverrun(*arguments, cwd=tmp_path), *words)


@pytest.mark.parametrize("command", ["up", "settings", "token --user a"])
def test_a_bad_setting_stops_every_command(command: str, tmp_path: Path) -> None:
    result = riverrun(*command.split(), cwd=tmp_path, RIVERRUN_PARTITIONS="three")
    assert_refused(result, "RIVERRUN_PARTITIONS='three' is not valid: expected a power of two")


def test_settings_lists_variables_defaults_and_current_values(tmp_path: Path) -> None:
    result = riverrun("settings", "--json", cwd=tmp_path, RIVERRUN_PORT="9000", RIVERRUN_PROT="1")
    port = next(setting for setting in json.loads(result.stdout) if setting["variable"] == "RIVERRUN_PORT")
    assert (port["default"], port["current"]) == ("8080", "9000")
    assert result.stderr == "riverrun: warning: RIVERRUN_PROT is not a setting; did you mean RIVERRUN_PORT?\n"
    table = riverrun("settings", cwd=tmp_path).stdout
    assert "RIVERRUN_AGGREGATE_CACHE_BYTES" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data-dir", "none"), ("no server runs on none",)),
        ((), ("no server runs on .riverrun",)),
        (("--url", "localhost:8080"), ("--url 'localhost:8080'", "http://host:port")),
        (("--data-dir", "stale"), ("no server runs on stale", "is gone")),
        (("--data-dir", "broken"), ("run.json is not a record of a running server",)),
        (("--url", "http://127.0.0.1:1"), ("no JWT secret",)),
    ],
)
def test_a_wrong_target_gives_one_plain_line(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name, content in (("stale", f'{{"url": "http://127.0.0.1:1", "pid": {gone.pid}}}'), ("broken", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    assert_refused(riverrun("bench", "send", *arguments, cwd=tmp_path), *words)


def test_help_names_every_command_without_importing_them(tmp_path: Path) -> None:
    code = "import sys, runtime.cli as c; sys.argv = ['riverrun', '--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    code += "print(sorted(m for m in sys.modules if m in {'nats', 'uvloop', 'psycopg', 'chdb', 'rich.table'}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("up", "serve", "token", "settings", "import", "verify", "bench"):
        assert f"\n  {command} " in result.stdout
    assert result.stdout.endswith("[]\n")
