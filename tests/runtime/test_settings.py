"""Settings: what the environment may say, and what is said back when it says something else."""

from pathlib import Path

import pytest

from runtime.settings import Settings, SettingsError, describe, unknown_variables, variable_of


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.load({})
    assert (settings.host, settings.port, settings.partitions) == ("127.0.0.1", 8080, 1)
    assert settings.jwt_secret_file is None
    assert not settings.allow_unsynced_log


def test_a_variable_takes_the_type_of_its_setting() -> None:
    settings = Settings.load(
        {
            "RIVERRUN_PARTITIONS": "8",
            "RIVERRUN_ALLOW_UNSYNCED_LOG": "Yes",
            "RIVERRUN_JWT_SECRET_FILE": "/run/secrets/jwt",
            "RIVERRUN_NATS_URL": "nats://a:1",
        }
    )
    assert settings.partitions == 8
    assert settings.allow_unsynced_log is True
    assert settings.jwt_secret_file == Path("/run/secrets/jwt")
    assert settings.nats_url == "nats://a:1"


def test_an_empty_variable_is_an_absent_one() -> None:
    assert Settings.load({"RIVERRUN_PORT": ""}).port == 8080


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("RIVERRUN_PARTITIONS", "3", "a power of two from 1 to 1024"),
        ("RIVERRUN_PARTITIONS", "2048", "a power of two from 1 to 1024"),
        ("RIVERRUN_PORT", "http", "a port, 0 to 65535"),
        ("RIVERRUN_PORT", "65536", "a port, 0 to 65535"),
        ("RIVERRUN_REPLICAS", "2", "1, 3 or 5"),
        ("RIVERRUN_ALLOW_UNSYNCED_LOG", "perhaps", "true or false"),
        ("RIVERRUN_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("RIVERRUN_DRAIN_S", "-1", "a whole number from 0"),
        ("RIVERRUN_DRAIN_S", "1.5", "a whole number from 0"),
        ("RIVERRUN_POSTGRES_URL", "mysql://x", "a URL like postgresql://… or postgres://…"),
        ("RIVERRUN_NODE_ID", "a node", "letters, digits, - and _"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(variable: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load({variable: value})
    assert str(error.value) == f"{variable}={value!r} is not valid: expected {expected}"


def test_a_url_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("nats://u:p@host:4222\n")
    assert Settings.load({"RIVERRUN_NATS_URL_FILE": str(tmp_path / "url")}).nats_url == "nats://u:p@host:4222"
    with pytest.raises(SettingsError, match=r"RIVERRUN_NATS_URL_FILE=.* a readable file with the URL in it"):
        Settings.load({"RIVERRUN_NATS_URL_FILE": str(tmp_path / "none")})


def test_passwords_are_never_shown() -> None:
    urls = {
        "RIVERRUN_NATS_URL": "nats://u:hidden@a:1,nats://u:hidden@b:2",
        "RIVERRUN_VALKEY_URL": "redis://:hidden@c/0",
    }
    shown = {setting.variable: setting.current for setting in describe(Settings.load(urls))}
    assert shown["RIVERRUN_NATS_URL"] == "nats://u:***@a:1,nats://u:***@b:2"
    assert shown["RIVERRUN_VALKEY_URL"] == "redis://:***@c/0"
    with pytest.raises(SettingsError) as error:
        Settings.load({"RIVERRUN_POSTGRES_URL": "mysql://u:hidden@a"})
    assert "hidden" not in str(error.value)


def test_every_setting_says_what_it_is() -> None:
    described = list(describe(Settings()))
    assert len(described) == len(Settings.__slots__)
    assert all(setting.what.endswith(".") for setting in described)


def test_an_unknown_variable_is_told_with_the_nearest_known_one() -> None:
    environment = {"RIVERRUN_PARTITION": "2", "RIVERRUN_NATS_URL_FILE": "x", "OTHER": "x", variable_of("port"): "1"}
    assert list(unknown_variables(environment)) == [
        "RIVERRUN_PARTITION is not a setting; did you mean RIVERRUN_PARTITIONS?"
    ]
