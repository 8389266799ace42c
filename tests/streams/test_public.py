"""The public forms of events: a conversation's for its members, a user's for their own sessions, none for the rest."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from domain import events
from domain.events import EVENTS, INTERNAL, OF_CONVERSATIONS, OF_USERS, Event
from streams import public
from streams.public import to_own

AT = datetime(2026, 11, 23, 20, 56, 0, 123_000, tzinfo=UTC)
HEAD: dict[str, Any] = {"originator_id": "ann", "originator_version": 2, "timestamp": AT, "actor_id": "ann"}


def test_every_event_is_of_a_conversation_or_of_a_user_or_internal_and_has_a_public_form_accordingly() -> None:
    assert sorted(kind.TOPIC for kind in EVENTS) == sorted({kind.TOPIC for kind in EVENTS})
    assert set(EVENTS) == {*OF_CONVERSATIONS, *OF_USERS, *INTERNAL}
    assert set(public._DATA) == set(OF_CONVERSATIONS)
    assert set(public._OWN_DATA) == set(OF_USERS)


@pytest.mark.parametrize(
    ("event", "conversation_id", "data"),
    [
        (events.ReadMoved(**HEAD, conversation_id=7, seq=3), "7", {"seq": 3}),
        (
            events.SettingsUpdated(**HEAD, conversation_id=7, muted_until=AT, pinned=True, hidden=False),
            "7",
            {"muted_until": "2026-11-23T20:56:00.123Z", "pinned": True, "hidden": False},
        ),
        (
            events.SettingsUpdated(**HEAD, conversation_id=7, muted_until=None, pinned=False, hidden=True),
            "7",
            {"muted_until": None, "pinned": False, "hidden": True},
        ),
        (
            events.ProfileUpdated(**HEAD, display_name="Ann", avatar_url=None, attributes={"team": "red"}),
            None,
            {"display_name": "Ann", "avatar_url": None, "attributes": {"team": "red"}},
        ),
        (
            events.DeviceRegistered(**HEAD, device_id="phone", kind="mobile"),
            None,
            {"device_id": "phone", "kind": "mobile"},
        ),
        (events.DeviceRevoked(**HEAD, device_id="phone"), None, {"device_id": "phone"}),
        (events.UserBlocked(**HEAD, user_id="eve"), None, {"user_id": "eve"}),
        (events.UserUnblocked(**HEAD, user_id="eve"), None, {"user_id": "eve"}),
    ],
    ids=lambda value: value.TOPIC if isinstance(value, Event) else "",
)
def test_an_own_event_has_no_version_and_names_its_conversation_if_there_is_one(
    event: Event, conversation_id: str | None, data: dict[str, Any]
) -> None:
    about = {} if conversation_id is None else {"conversation_id": conversation_id}
    pushed = msgspec.json.decode(msgspec.json.encode(to_own(event)))
    assert list(pushed.items()) == list(
        {
            "type": event.TOPIC,
            **about,
            "occurred_at": "2026-11-23T20:56:00.123Z",
            "actor_id": "ann",
            "data": data,
        }.items()
    )
    assert public.to_public(event) is None


def test_what_is_internal_or_of_a_conversation_is_no_own_event() -> None:
    created = events.UserCreated(**HEAD, originator_topic="user")
    removed = events.MemberRemoved(**HEAD, user_id="eve")
    assert to_own(created) is None
    assert public.to_public(created) is None
    assert to_own(removed) is None
    assert public.to_public(removed) is not None
