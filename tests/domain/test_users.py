"""The rules of a user: profile, devices, read markers, own settings, blocks."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from domain import users
from domain.errors import Invalid, NotFound, Revoked
from domain.events import UserCreated
from domain.own_settings import OwnSettings
from domain.profiles import Profile
from domain.users import BLOCKS_MAX, DEVICES_MAX, REVOKED_MAX, TooSoon, User
from tests.domain.given import START, refused
from tests.domain.given_user import (
    ANN,
    UserStory,
    blocked,
    given_user,
    profiled,
    read,
    registered,
    revoked,
    settled,
    unblocked,
)


def test_a_user_begins_without_anything() -> None:
    story = UserStory(User.create(ANN, now=START))
    (event,) = story.take()
    assert event == UserCreated(
        originator_id=ANN, originator_version=1, timestamp=START, actor_id=ANN, originator_topic=User.TOPIC
    )
    assert story.user.profile == Profile(None, None, {})


# -- profile ------------------------------------------------------------------------------------------------


def test_a_profile_keeps_what_is_not_given() -> None:
    ann = given_user(profiled("Ann", "https://a.example/1.png", {"team": "red"}))
    assert ann.profile(display_name="Ann B") == Profile("Ann B", "https://a.example/1.png", {"team": "red"})
    assert ann.profile(avatar_url=None).avatar_url is None
    assert ann.profile(attributes={"role": "lead"}).attributes == {"role": "lead"}
    assert ann.then()[-1] == (
        "profile.updated",
        {"display_name": "Ann B", "avatar_url": None, "attributes": {"role": "lead"}},
    )


@pytest.mark.parametrize(
    "same", [{}, {"display_name": "Ann"}, {"attributes": {"team": "red"}, "avatar_url": None}], ids=repr
)
def test_a_profile_that_stays_the_same_makes_no_event(same: dict[str, Any]) -> None:
    ann = given_user(profiled("Ann", None, {"team": "red"}))
    ann.profile(**same)
    assert ann.then() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"display_name": "x" * 100},
        {"display_name": "مى‌خواهم 👩‍💻"},  # with the joiners of Persian and of emoji
        {"avatar_url": "http://x"},
        {"avatar_url": "https://" + "x" * 2_040},
        {"attributes": {f"k{i}": "v" for i in range(32)}},
        {"attributes": {"A-z_0.9" + "k" * 57: "v" * 512, "empty": ""}},
        {"attributes": {"text": "é\n🌊"}},
        {"attributes": {f"k{i:02}": "v" * 253 for i in range(32)}},  # 8 KiB in all
    ],
)
def test_a_profile_may_be_this(changes: dict[str, Any]) -> None:
    ann = given_user()
    ann.profile(**changes)
    assert len(ann.then()) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"display_name": ""}, "display_name"),
        ({"display_name": "  "}, "display_name"),
        ({"display_name": "x" * 101}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"display_name": "a\ud800"}, "display_name"),
        ({"avatar_url": ""}, "avatar_url"),
        ({"avatar_url": "javascript:alert(1)"}, "avatar_url"),
        ({"avatar_url": "https://"}, "avatar_url"),
        ({"avatar_url": "https://x y"}, "avatar_url"),
        ({"avatar_url": "https://bücher.example"}, "avatar_url"),
        ({"avatar_url": "https://x\n"}, "avatar_url"),
        ({"avatar_url": "https://" + "x" * 2_041}, "avatar_url"),
        ({"attributes": {f"k{i}": "v" for i in range(33)}}, "attributes"),
        ({"attributes": {f"k{i:02}": "v" * 254 for i in range(32)}}, "attributes"),  # over 8 KiB in all
        ({"attributes": {f"k{i}": "🌊" * 512 for i in range(5)}}, "attributes"),  # bytes count, not characters
        ({"attributes": {"": "v"}}, "attributes."),
        ({"attributes": {"a b": "v"}}, "attributes.a b"),
        ({"attributes": {"é\ud800" + "k" * 100: "v"}}, "attributes.\\xe9\\ud800" + "k" * 62),
        ({"attributes": {"k": "v" * 513}}, "attributes.k"),
        ({"attributes": {"k": "a\x00"}}, "attributes.k"),
        ({"attributes": {"k": "a\ud800"}}, "attributes.k"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(changes: dict[str, Any], field: str) -> None:
    ann = given_user()
    with refused(Invalid, field):
        ann.profile(**changes)
    assert ann.then() == []


# -- devices ------------------------------------------------------------------------------------------------


def test_a_device_is_registered_once() -> None:
    ann = given_user()
    first = ann.register("phone", "mobile")
    assert ann.register("phone", "web") == first
    assert (first.kind, first.registered_at, first.revoked) == ("mobile", START + timedelta(seconds=2), False)
    assert ann.then() == [("device.registered", {"device_id": "phone", "kind": "mobile"})]


def test_a_device_is_revoked_once() -> None:
    ann = given_user(registered("phone"))
    first = ann.revoke("phone")
    assert ann.revoke("phone") == first
    assert first.revoked
    assert ann.then() == [("device.revoked", {"device_id": "phone"})]


def test_a_device_that_is_not_there_is_not_revoked() -> None:
    ann = given_user()
    with refused(NotFound):
        ann.revoke("phone")
    assert ann.then() == []


def test_a_revoked_device_needs_a_token_from_after_that() -> None:
    ann = given_user(registered("phone"), revoked("phone"))
    revoked_at = ann.user.modified_on
    for token_issued_at in (None, revoked_at - timedelta(days=1), revoked_at):
        with refused(Revoked):
            ann.register("phone", token_issued_at=token_issued_at)
    device = ann.register("phone", "web", token_issued_at=revoked_at + timedelta(milliseconds=1))
    assert (device.kind, device.revoked) == ("web", False)
    assert ann.then() == [("device.registered", {"device_id": "phone", "kind": "web"})]
    with refused(Revoked):  # also when it is registered anew: who had the old token does not share in the new one
        ann.register("phone", token_issued_at=revoked_at)


def test_so_many_devices_and_no_more_but_revoked_ones_do_not_count() -> None:
    ann = given_user(*(registered(f"d{i}") for i in range(DEVICES_MAX)))
    with refused(Invalid, "device_id"):
        ann.register("one more")
    ann.register("d0")
    ann.revoke("d0")
    ann.register("one more")
    with refused(Invalid, "device_id"):
        ann.register("d0", token_issued_at=ann.now)


def test_the_newest_revoked_devices_are_remembered() -> None:
    facts = [fact for i in range(REVOKED_MAX + 1) for fact in (registered(f"d{i}"), revoked(f"d{i}"))]
    ann = given_user(registered("mine"), *facts)
    assert set(ann.user.devices) == {"mine", *(f"d{i}" for i in range(1, REVOKED_MAX + 1))}


@pytest.mark.parametrize(
    ("device_id", "kind", "field"),
    [
        ("", "web", "device_id"),
        ("x" * 65, "web", "device_id"),
        ("a\nb", "web", "device_id"),
        ("a\ud800", "web", "device_id"),
        ("phone", "fridge", "device_kind"),
    ],
)
def test_a_device_that_cannot_be_is_refused(device_id: str, kind: str, field: str) -> None:
    with refused(Invalid, field):
        given_user().register(device_id, kind)


# -- read markers -------------------------------------------------------------------------------------------


def test_a_marker_moves_forward_only() -> None:
    ann = given_user(read(7, 5))
    assert ann.read(7, 8) == 8
    assert ann.read(7, 8) == 8
    assert ann.read(7, 3) == 8
    assert ann.read(7, -1) == 8
    assert ann.read(8, 0) == 0
    assert ann.then() == [("read.moved", {"conversation_id": 7, "seq": 8})]


def test_a_marker_moves_once_a_second() -> None:
    ann = given_user(step=timedelta(milliseconds=100))
    ann.read(7, 5)
    moved_at = ann.now
    with pytest.raises(TooSoon) as too_soon:
        ann.read(7, 6)
    soon = too_soon.value
    assert (soon.ready_at, soon.conversation_id, soon.seq) == (moved_at + timedelta(seconds=1), 7, 6)
    assert ann.read(7, 4) == 5  # what stands is answered at once
    assert ann.read(8, 1) == 1  # another one
    ann.wait(0.6)  # with the steps: exactly a second after the last move
    assert ann.now + timedelta(milliseconds=100) == soon.ready_at
    assert ann.read(7, 9) == 9
    assert [fields["seq"] for _, fields in ann.then()] == [5, 1, 9]


def test_the_marker_that_was_moved_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "MARKERS_MAX", 3)
    ann = given_user(read(1, 1), read(2, 1), read(3, 1), read(1, 2), read(4, 1))
    assert list(ann.user.markers) == [3, 1, 4]


# -- own settings -------------------------------------------------------------------------------------------


def test_own_settings_keep_what_is_not_given() -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    ann = given_user(settled(7, pinned=True))
    assert ann.settle(7, muted_until=until) == OwnSettings(until, pinned=True)
    assert ann.settle(7, muted_until=None, pinned=False, hidden=True) == OwnSettings(hidden=True)
    assert ann.settle(8, hidden=True) == OwnSettings(hidden=True)
    assert ann.then() == [
        ("settings.updated", {"conversation_id": 7, "muted_until": until, "pinned": True, "hidden": False}),
        ("settings.updated", {"conversation_id": 7, "muted_until": None, "pinned": False, "hidden": True}),
        ("settings.updated", {"conversation_id": 8, "muted_until": None, "pinned": False, "hidden": True}),
    ]


def test_own_settings_that_stay_the_same_make_no_event() -> None:
    ann = given_user(settled(7, pinned=True))
    ann.settle(7)
    ann.settle(7, pinned=True, hidden=False, muted_until=None)
    ann.settle(8, pinned=False)
    assert ann.then() == []


def test_a_mute_ends_in_utc_at_a_whole_millisecond() -> None:
    east = timezone(timedelta(hours=8))
    ann = given_user()
    own_settings = ann.settle(7, muted_until=datetime(2027, 1, 1, 8, 0, 0, 123_456, tzinfo=east))
    assert own_settings.muted_until == datetime(2027, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)
    ann.settle(7, muted_until=datetime(2027, 1, 1, 0, 0, 0, 123_999, tzinfo=UTC))
    assert len(ann.then()) == 1


@pytest.mark.parametrize(
    "until",
    [datetime.fromisoformat("2027-01-01T00:00:00"), datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))],
    ids=repr,
)
def test_a_mute_until_no_time_is_refused(until: datetime) -> None:
    with refused(Invalid, "muted_until"):
        given_user().settle(7, muted_until=until)


def test_settings_of_so_many_conversations_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "OWN_SETTINGS_MAX", 2)
    ann = given_user(settled(1, pinned=True), settled(2, pinned=True))
    with refused(Invalid, "conversation_id"):
        ann.settle(3, pinned=True)
    ann.settle(1, pinned=False)
    ann.settle(3, pinned=True)
    ann.settle(2, hidden=True)
    assert set(ann.user.own_settings) == {2, 3}


# -- blocks -------------------------------------------------------------------------------------------------


def test_a_user_is_blocked_and_unblocked_once() -> None:
    ann = given_user(blocked("bob"), unblocked("bob"))
    for _ in range(2):
        ann.block("eve")
    for _ in range(2):
        ann.unblock("eve")
    ann.unblock("bob")
    assert ann.then() == [("user.blocked", {"user_id": "eve"}), ("user.unblocked", {"user_id": "eve"})]


@pytest.mark.parametrize("user_id", [ANN, "", "a b", "x" * 65])
def test_oneself_and_nobody_cannot_be_blocked(user_id: str) -> None:
    with refused(Invalid, "user_id"):
        given_user().block(user_id)


def test_so_many_are_blocked_and_no_more() -> None:
    ann = given_user(*(blocked(f"u{i}") for i in range(BLOCKS_MAX)))
    with refused(Invalid, "user_id"):
        ann.block("eve")
    ann.block("u0")
    assert ann.then() == []
    ann.unblock("u0")
    ann.block("eve")
    assert len(ann.then()) == 2
