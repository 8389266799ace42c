"""Several sessions of a user, and the small group around them: who sees what of whom."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.api.conftest import NewUser, User
from tests.api.sessions import Sessions, sessions_fixture  # noqa: F401  # the fixture `sessions`
from tests.api.sockets import Client, Json

SMALL = 100  # members from which on there are no signals


def _signals(client: Client, type_: str) -> list[Json]:
    return [signal for signal in client.signals if signal["type"] == type_]


async def test_every_session_sees_everything_ones_own_messages_too(alice: User, bob: User, sessions: Sessions) -> None:
    devices = [await sessions.open(alice, device_id=name) for name in ("desktop", "phone", "tablet")]
    conversation = await alice.open_group(bob)
    own = secrets.token_hex(8)
    ack = (await devices[0].send(int(conversation), "from my desk", own))["ok"]
    await bob.say(conversation, "hello")
    assert (await alice.patch(f"/v1/conversations/{conversation}", {"name": "Desk"})).is_success
    for device in devices:
        await device.until(lambda client: client.versions(int(conversation)) == [1, 2, 3, 4])
        assert [event["type"] for event in device.events] == [
            "conversation.created",
            "message.posted",
            "message.posted",
            "conversation.updated",
        ]
        posted = device.events[1]["data"]
        assert (posted["client_msg_id"], posted["message_id"], posted["seq"]) == (own, ack["message_id"], 1)
    assert all(device.events == devices[0].events for device in devices)


async def test_what_is_ones_own_reaches_ones_other_sessions_and_nobody_else(
    alice: User, bob: User, sessions: Sessions
) -> None:
    conversation = await alice.open_group(bob)
    await alice.say(conversation, "hello")
    desktop, phone = await sessions.open(bob), await sessions.open(bob)
    other = await sessions.open(alice)
    assert (await desktop.request("read", conversation_id=conversation, seq=1))["ok"]["read_seq"] == 1
    settings = {"muted_until": "2999-01-01T00:00:00.000Z", "pinned": True, "hidden": False}
    assert (await bob.patch(f"/v1/conversations/{conversation}/settings", settings)).is_success
    profile = {"display_name": "Bob", "avatar_url": None, "attributes": {"a": "b"}}
    assert (await bob.patch("/v1/profile", profile)).is_success
    assert (await bob.request("PUT", "/v1/blocks/somebody")).is_success
    assert (await bob.request("DELETE", "/v1/blocks/somebody")).is_success
    expected = [
        ("read.moved", conversation, {"seq": 1}),
        ("settings.updated", conversation, settings),
        ("profile.updated", None, profile),
        ("user.blocked", None, {"user_id": "somebody"}),
        ("user.unblocked", None, {"user_id": "somebody"}),
    ]
    for session in (desktop, phone):
        await session.until(lambda client: len(client.own) == len(expected))
        assert [(event["type"], event.get("conversation_id"), event["data"]) for event in session.own] == expected
        assert all(event["actor_id"] == bob.user_id and event["occurred_at"] for event in session.own)
    await alice.say(conversation, "after all that")
    await other.until(lambda client: client.versions(int(conversation)) == [3])
    assert other.own == []


async def test_others_are_signalled_how_far_one_has_read(
    alice: User, bob: User, new_user: NewUser, sessions: Sessions
) -> None:
    carol = new_user("carol")
    conversation = await alice.open_group(bob, carol)
    await alice.say(conversation, "hello")
    reader, watchers = await sessions.open(bob), [await sessions.open(alice), await sessions.open(carol)]
    assert (await reader.request("read", conversation_id=conversation, seq=1))["ok"]["read_seq"] == 1
    receipt = {"type": "receipt", "conversation_id": conversation, "user_id": bob.user_id, "read_seq": 1}
    for watcher in watchers:
        await watcher.until(lambda client: receipt in client.signals)
        page = (await alice.get(f"/v1/conversations/{conversation}/receipts")).json()
        assert {each["user_id"]: each["read_seq"] for each in page["receipts"]}[bob.user_id] == 1
    assert "ok" in await reader.request("ping")
    assert _signals(reader, "receipt") == []


async def test_typing_is_seen_by_the_others_and_never_stored(
    alice: User, bob: User, mallory: User, sessions: Sessions
) -> None:
    conversation = await alice.open_group(bob)
    hers, her_phone = await sessions.open(alice), await sessions.open(alice)
    his, stranger = await sessions.open(bob), await sessions.open(mallory)
    assert (await hers.request("typing", conversation_id=conversation, active=True))["ok"] == {}
    await his.until(lambda client: len(_signals(client, "typing")) == 1)
    (signal,) = _signals(his, "typing")
    assert signal == {
        "type": "typing",
        "conversation_id": conversation,
        "user_id": alice.user_id,
        "active": True,
        "expires_in_s": 6,
    }
    await alice.say(conversation, "done")
    for session in (hers, her_phone, his):
        await session.until(lambda client: client.versions(int(conversation)) == [2])
    assert _signals(hers, "typing") == _signals(her_phone, "typing") == stranger.signals == []
    later = await sessions.open(bob, cursor=his.hello["cursor"])
    await later.until(lambda client: client.versions(int(conversation)) == [2])
    assert _signals(later, "typing") == []
    events = (await alice.get(f"/v1/conversations/{conversation}/events")).json()["events"]
    assert [event["type"] for event in events] == ["conversation.created", "message.posted"]


async def test_a_flood_of_typing_is_refused_and_the_session_stays(alice: User, bob: User, sessions: Sessions) -> None:
    conversation = await alice.open_group(bob)
    hers, his = await sessions.open(alice), await sessions.open(bob)
    asked = [hers.request("typing", conversation_id=conversation, active=True) for _ in range(50)]
    errors = [answer["error"] for answer in await asyncio.gather(*asked) if "error" in answer]
    assert errors
    assert all((error["code"], error["retryable"]) == ("rate_limited", True) for error in errors)
    assert all(error["retry_after"] >= 1 for error in errors)
    ack = (await hers.send(int(conversation), "enough"))["ok"]
    await his.until(lambda client: client.versions(int(conversation)) == [ack["version"]])
    assert len(_signals(his, "typing")) == 50 - len(errors)


async def test_typing_everywhere_at_once_is_refused(alice: User, bob: User, sessions: Sessions) -> None:
    groups = [await alice.open_group(bob) for _ in range(14)]
    session = await sessions.open(alice)
    asked = [session.request("typing", conversation_id=group, active=True) for group in groups]
    errors = [answer["error"]["code"] for answer in await asyncio.gather(*asked) if "error" in answer]
    assert errors
    assert set(errors) == {"rate_limited"}


async def test_nobody_types_where_they_are_not(alice: User, bob: User, mallory: User, sessions: Sessions) -> None:
    conversation = await alice.open_group(bob)
    his, stranger = await sessions.open(bob), await sessions.open(mallory)
    for id_ in (conversation, "7000000000000000001"):
        error = (await stranger.request("typing", conversation_id=id_, active=True))["error"]
        assert error["code"] == "not_found"
    await alice.say(conversation, "anybody?")
    await his.until(lambda client: client.versions(int(conversation)) == [2])
    assert his.signals == []


async def test_who_is_blocked_is_not_seen_typing(alice: User, bob: User, sessions: Sessions) -> None:
    response = await alice.post("/v1/conversations", {"kind": "direct", "members": [bob.user_id]})
    direct = response.json()["conversation_id"]
    group = await alice.open_group(bob)
    assert (await alice.request("PUT", f"/v1/blocks/{bob.user_id}")).is_success
    hers, his = await sessions.open(alice), await sessions.open(bob)
    assert (await his.request("typing", conversation_id=direct, active=True))["ok"] == {}
    assert (await his.request("typing", conversation_id=group, active=True))["ok"] == {}
    await hers.until(lambda client: _signals(client, "typing") != [])
    assert [signal["conversation_id"] for signal in _signals(hers, "typing")] == [group]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "active"),
        ({"active": 1}, "active"),
        ({"active": "true"}, "active"),
        ({"active": None}, "active"),
        ({"active": True, "text": "hel"}, "text"),
        ({"active": True, "conversation_id": "x"}, "conversation_id"),
        ({"active": True, "conversation_id": 7}, "conversation_id"),
    ],
)
async def test_typing_that_cannot_be_is_refused(
    alice: User, sessions: Sessions, parameters: dict[str, Any], field: str
) -> None:
    conversation = await alice.open_group()
    session = await sessions.open(alice)
    error = (await session.request("typing", **{"conversation_id": conversation, **parameters}))["error"]
    assert (error["code"], error["field"]) == ("invalid", field)


async def test_a_large_group_has_no_signals(alice: User, bob: User, sessions: Sessions) -> None:
    crowd = [f"crowd-{number}-{alice.user_id[-12:]}" for number in range(SMALL)]
    body = {"kind": "group", "members": [bob.user_id, *crowd]}
    large = (await alice.post("/v1/conversations", body)).json()["conversation_id"]
    small = await alice.open_group(bob)
    hers, his = await sessions.open(alice), await sessions.open(bob)
    await hers.request("typing", conversation_id=large, active=True)
    await hers.request("typing", conversation_id=small, active=True)
    await his.until(lambda client: _signals(client, "typing") != [])
    assert [signal["conversation_id"] for signal in _signals(his, "typing")] == [small]
