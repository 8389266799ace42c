"""Presence as clients see it: of those they talk with, chosen, changed and pushed; and of strangers never."""

from typing import Any

import pytest

from tests.api.conftest import NewUser, User, assert_problem
from tests.api.sessions import Sessions, sessions_fixture  # noqa: F401  # the fixture `sessions`
from tests.api.sockets import Client, Json

WATCH_MAX = 500


def _last(client: Client, user: User) -> Json:
    """What was pushed of a user last."""
    pushed = [signal for signal in client.signals if signal["type"] == "presence" and signal["user_id"] == user.user_id]
    return pushed[-1] if pushed else {"status": None}


async def test_changes_of_those_one_talks_with_are_pushed(alice: User, bob: User, sessions: Sessions) -> None:
    await alice.open_group(bob)
    watcher = await sessions.open(alice)
    answer = (await watcher.request("presence", subscribe=[bob.user_id]))["ok"]
    assert answer == {
        "users": [{"user_id": bob.user_id, "status": "offline", "devices": [], "last_seen": None}],
        "unknown": [],
    }
    phone = await sessions.open(bob, device_id="phone", device_kind="mobile")
    await watcher.until(lambda client: _last(client, bob)["status"] == "online")
    assert _last(watcher, bob)["devices"] == ["mobile"]
    await phone.request("presence", status="busy")
    await watcher.until(lambda client: _last(client, bob)["status"] == "busy")
    assert (await bob.request("PUT", "/v1/presence", json={"status": "invisible"})).is_success
    await watcher.until(lambda client: _last(client, bob)["status"] == "offline")
    asked = (await alice.post("/v1/presence", {"users": [bob.user_id]})).json()
    assert [user["status"] for user in asked["users"]] == ["offline"]
    assert (await bob.request("PUT", "/v1/presence", json={"status": "online"})).is_success
    await watcher.until(lambda client: _last(client, bob)["status"] == "online")
    await phone.close()
    await watcher.until(lambda client: _last(client, bob)["status"] == "offline")
    assert _last(watcher, bob)["last_seen"] is not None
    assert _last(watcher, bob)["devices"] == []


async def test_strangers_are_unknown_and_never_pushed(
    alice: User, bob: User, mallory: User, sessions: Sessions
) -> None:
    await alice.open_group(bob)
    watcher = await sessions.open(mallory)
    asked = [alice.user_id, "nobody-of-this-name"]
    answer = (await watcher.request("presence", subscribe=[*asked, mallory.user_id]))["ok"]
    assert answer["unknown"] == asked
    assert [user["user_id"] for user in answer["users"]] == [mallory.user_id]
    assert (await mallory.post("/v1/presence", {"users": asked})).json() == {"users": [], "unknown": asked}
    friend = await sessions.open(bob)
    assert (await friend.request("presence", subscribe=[alice.user_id]))["ok"]["unknown"] == []
    await sessions.open(alice)
    await friend.until(lambda client: _last(client, alice)["status"] == "online")
    assert "ok" in await watcher.request("ping")
    assert not [signal for signal in watcher.signals if signal["user_id"] == alice.user_id]


async def test_who_blocked_one_is_unknown(alice: User, bob: User, sessions: Sessions) -> None:
    await alice.open_group(bob)
    assert (await alice.request("PUT", f"/v1/blocks/{bob.user_id}")).is_success
    watcher = await sessions.open(bob)
    assert (await watcher.request("presence", subscribe=[alice.user_id]))["ok"]["unknown"] == [alice.user_id]
    assert (await bob.post("/v1/presence", {"users": [alice.user_id]})).json()["unknown"] == [alice.user_id]


async def test_no_more_are_watched_than_one_may(alice: User, sessions: Sessions) -> None:
    watcher = await sessions.open(alice)
    tag = alice.user_id[-12:]
    crowd = [f"crowd-{number}-{tag}" for number in range(900)]
    body = {"kind": "group", "members": crowd}
    assert (await alice.post("/v1/conversations", body)).status_code == 201

    error = (await watcher.request("presence", subscribe=crowd[: WATCH_MAX + 1]))["error"]
    assert (error["code"], error["field"]) == ("invalid", "subscribe")
    for first in range(0, WATCH_MAX, 100):  # several calls add up
        answer = (await watcher.request("presence", subscribe=crowd[first : first + 100]))["ok"]
        assert (len(answer["users"]), answer["unknown"]) == (100, [])
    for first in range(WATCH_MAX, 900, 100):
        error = (await watcher.request("presence", subscribe=crowd[first : first + 100]))["error"]
        assert (error["code"], error["field"]) == ("invalid", "subscribe")
    again = (await watcher.request("presence", subscribe=crowd[:WATCH_MAX]))["ok"]
    assert len(again["users"]) == WATCH_MAX  # those that are watched already are no more
    strangers = (await watcher.request("presence", subscribe=[f"stranger-{i}" for i in range(WATCH_MAX)]))["ok"]
    assert (strangers["users"], len(strangers["unknown"])) == ([], WATCH_MAX)
    answer = await watcher.request("presence", unsubscribe=crowd[:1], subscribe=crowd[-1:])
    assert len(answer["ok"]["users"]) == 1
    assert_problem(await alice.post("/v1/presence", {"users": crowd[: WATCH_MAX + 1]}), 422, "invalid", field="users")


async def test_who_is_watched_no_more_is_pushed_no_more(
    alice: User, bob: User, new_user: NewUser, sessions: Sessions
) -> None:
    carol = new_user("carol")
    await alice.open_group(bob, carol)
    watcher = await sessions.open(alice)
    await watcher.request("presence", subscribe=[bob.user_id, carol.user_id])
    await watcher.request("presence", unsubscribe=[bob.user_id, "somebody-never-watched"])
    await sessions.open(bob)
    await sessions.open(carol)
    await watcher.until(lambda client: _last(client, carol)["status"] == "online")
    assert _last(watcher, bob) == {"status": None}


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"status": "asleep"}, "status"),
        ({"status": "offline"}, "status"),
        ({"status": None}, "status"),
        ({"subscribe": ["a b"]}, "subscribe"),
        ({"subscribe": [7]}, "subscribe[0]"),
        ({"subscribe": "bob"}, "subscribe"),
        ({"unsubscribe": {}}, "unsubscribe"),
        ({"watch": []}, "watch"),
    ],
)
async def test_presence_that_cannot_be_is_refused(
    alice: User, sessions: Sessions, parameters: dict[str, Any], field: str
) -> None:
    session = await sessions.open(alice)
    error = (await session.request("presence", **parameters))["error"]
    assert (error["code"], error["field"]) == ("invalid", field)
    assert "ok" in await session.request("ping")


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        ("POST", {}, "users"),
        ("POST", {"users": ["a b"]}, "users"),
        ("POST", {"users": ["a"], "colour": "red"}, "colour"),
        ("PUT", {}, "status"),
        ("PUT", {"status": "asleep"}, "status"),
        ("PUT", {"status": "busy", "until": "noon"}, "until"),
    ],
)
async def test_presence_over_http_that_cannot_be_is_refused(
    alice: User, method: str, body: dict[str, Any], field: str
) -> None:
    assert_problem(await alice.request(method, "/v1/presence", json=body), 422, "invalid", field=field)
