"""Roles, settings and what each lets one do."""

from typing import get_args

import pytest

from domain.errors import Invalid
from domain.members import MEMBERS_MAX, ROLES, Kind, Role, Settings, Who, allows, default_settings, outranks


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("direct", Settings(post="members", invite="admins")),
        ("group", Settings(post="members", invite="admins")),
        ("channel", Settings(post="admins", invite="admins")),
    ],
)
def test_every_kind_has_its_defaults(kind: Kind, settings: Settings) -> None:
    assert default_settings(kind) == settings
    assert set(get_args(Kind)) == set(MEMBERS_MAX)


@pytest.mark.parametrize(
    ("who", "role", "allowed"),
    [
        ("members", "member", True),
        ("members", "admin", True),
        ("members", "owner", True),
        ("admins", "member", False),
        ("admins", "admin", True),
        ("admins", "owner", True),
    ],
)
def test_admins_means_admins_and_the_owner(who: Who, role: Role, allowed: bool) -> None:
    assert allows(who, role) is allowed


def test_only_a_higher_role_outranks() -> None:
    outranked = {(role, other) for role in ROLES for other in ROLES if outranks(role, other)}
    assert outranked >= {("owner", "admin"), ("owner", "member"), ("admin", "member")}
    assert not outranked & {("admin", "owner"), ("admin", "admin")}
    assert not any(role == "member" for role, _ in outranked)


def test_settings_change_one_at_a_time_and_are_never_edited() -> None:
    before = Settings()
    after = before.changed({"post": "admins"})
    assert before == Settings(post="members", invite="admins")
    assert after == Settings(post="admins", invite="admins")
    assert after.changed({"invite": "members"}) == Settings(post="admins", invite="members")
    assert before.changed({}) == before
    assert Settings(**after.as_dict()) == after


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "blue"}, "settings.colour"),
        ({"post": "nobody"}, "settings.post"),
        ({"invite": None}, "settings.invite"),
        ({"post": "admins", "invite": "owner"}, "settings.invite"),
    ],
)
def test_an_unknown_setting_or_value_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Settings().changed(changes)
    assert refusal.value.field == field
