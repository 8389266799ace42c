"""Read markers through the doors: forward only, coalesced, one's own; and what cannot be read."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.api.conftest import NewUser, User, assert_problem
from tests.api.sessions import Sessions, sessions_fixture  # noqa: F401  # the fixture `sessions`

UNKNOWN_ID = "7000000000000000001"


async def _entry(user: User, conversation: str) -> dict[str, Any]:
    page = (await user.get("/v1/inbox")).json()
    return next(entry for entry in page["conversations"] if entry["conversation_id"] == conversation)


async def _talk(alice: User, bob: User, count: int = 5) -> str:
    """The id of a group in which Alice has said so much to Bob."""
    conversation = await alice.open_group(bob)
    for number in range(count):
        await alice.say(conversation, f"message {number}")
    return conversation


async def test_a_marker_moves_forward_only(alice: User, bob: User) -> None:
    conversation = await _talk(alice, bob)
    path = f"/v1/conversations/{conversation}/read"
    assert (await _entry(bob, conversation))["unread"] == 5
    assert (await bob.post(path, {"seq": 0})).json() == {"conversation_id": conversation, "read_seq": 0}
    for seq, stands in ((3, 3), (1, 3), (3, 3), (0, 3)):
        moved = await bob.post(path, {"seq": seq})
        assert moved.status_code == 200, moved.text
        assert moved.json() == {"conversation_id": conversation, "read_seq": stands}
    entry = await _entry(bob, conversation)
    assert (entry["read_seq"], entry["unread"]) == (3, 2)


async def test_what_is_not_there_cannot_be_read(alice: User, bob: User, sessions: Sessions) -> None:
    conversation = await _talk(alice, bob, 2)
    path = f"/v1/conversations/{conversation}/read"
    for seq in (3, 1 << 40, (1 << 63) - 1):
        assert_problem(await bob.post(path, {"seq": seq}), 422, "invalid", field="seq")
    session = await sessions.open(bob)
    error = (await session.request("read", conversation_id=conversation, seq=3))["error"]
    assert (error["code"], error["field"]) == ("invalid", "seq")
    assert (await session.request("read", conversation_id=conversation, seq=2))["ok"]["read_seq"] == 2


async def test_a_message_can_be_read_the_moment_it_is_acked(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    ack = await alice.say(conversation, "hello")
    moved = await bob.post(f"/v1/conversations/{conversation}/read", {"seq": ack["seq"]})
    assert moved.status_code == 200, moved.text


async def test_who_is_not_in_it_cannot_read_it(alice: User, bob: User, mallory: User, sessions: Sessions) -> None:
    conversation = await _talk(alice, bob, 2)
    stranger = await sessions.open(mallory)
    for id_ in (conversation, UNKNOWN_ID):
        assert_problem(await mallory.post(f"/v1/conversations/{id_}/read", {"seq": 1}), 404, "not_found")
        assert_problem(await mallory.get(f"/v1/conversations/{id_}/receipts"), 404, "not_found")
        assert_problem(await mallory.patch(f"/v1/conversations/{id_}/settings", {"pinned": True}), 404, "not_found")
        assert (await stranger.request("read", conversation_id=id_, seq=1))["error"]["code"] == "not_found"
    assert (await alice.post(f"/v1/conversations/{conversation}/members", {"remove": [bob.user_id]})).is_success
    assert_problem(await bob.post(f"/v1/conversations/{conversation}/read", {"seq": 1}), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "seq"),
        ({"seq": None}, "seq"),
        ({"seq": "1"}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": -1}, "seq"),
        ({"seq": 1 << 63}, "seq"),
        ({"seq": 10**30}, "seq"),
        ({"seq": [1]}, "seq"),
        ({"seq": 1, "version": 1}, "version"),
    ],
)
async def test_a_move_that_cannot_be_is_refused(
    alice: User, sessions: Sessions, body: dict[str, Any], field: str
) -> None:
    conversation = await alice.open_group()
    assert_problem(await alice.post(f"/v1/conversations/{conversation}/read", body), 422, "invalid", field=field)
    session = await sessions.open(alice)
    error = (await session.request("read", conversation_id=conversation, **body))["error"]
    assert (error["code"], error["field"]) == ("invalid", field)


@pytest.mark.parametrize("id_", ["x", "0", "-1", "1" * 30, "%00", "१"])
async def test_an_id_that_is_none_is_refused(alice: User, id_: str) -> None:
    response = await alice.post(f"/v1/conversations/{id_}/read", {"seq": 1})
    assert response.status_code in (404, 422), response.text


async def test_posting_reads_ones_own_message(alice: User, bob: User) -> None:
    conversation = await _talk(alice, bob, 3)
    await bob.say(conversation, "I see")
    entry = await _entry(bob, conversation)
    assert (entry["read_seq"], entry["unread"]) == (4, 0)
    assert (await bob.post(f"/v1/conversations/{conversation}/read", {"seq": 1})).status_code == 200
    assert (await _entry(bob, conversation))["read_seq"] == 4
    assert (await _entry(alice, conversation))["unread"] == 1


async def test_many_moves_are_few_events_and_the_last_is_stored(alice: User, bob: User, sessions: Sessions) -> None:
    conversation = await _talk(alice, bob, 20)
    phone = await sessions.open(bob)
    path = f"/v1/conversations/{conversation}/read"
    moves = await asyncio.gather(*(bob.post(path, {"seq": seq}) for seq in range(1, 21)))
    assert all(moved.status_code == 200 for moved in moves)
    assert all(moved.json()["read_seq"] >= seq for seq, moved in enumerate(moves, start=1))
    await phone.until(lambda client: client.own != [] and client.own[-1]["data"] == {"seq": 20})
    stored = [datetime.fromisoformat(event["occurred_at"]) for event in phone.own]
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in pairwise(stored))
    assert (await _entry(bob, conversation))["read_seq"] == 20


async def test_who_comes_later_has_nothing_unread_from_before(alice: User, bob: User, new_user: NewUser) -> None:
    carol = new_user("carol")
    conversation = await _talk(alice, bob, 3)
    members = f"/v1/conversations/{conversation}/members"
    assert (await alice.post(members, {"add": [carol.user_id]})).is_success
    await alice.say(conversation, "welcome")
    entry = await _entry(carol, conversation)
    assert (entry["joined_seq"], entry["read_seq"], entry["unread"]) == (4, 0, 1)


async def test_receipts_say_how_far_each_has_read(alice: User, bob: User, new_user: NewUser) -> None:
    carol = new_user("carol")
    conversation = await alice.open_group(bob, carol)
    for number in range(3):
        await alice.say(conversation, f"message {number}")
    path = f"/v1/conversations/{conversation}"
    assert (await bob.post(f"{path}/read", {"seq": 2})).is_success
    page = (await bob.get(f"{path}/receipts")).json()
    assert {receipt["user_id"]: receipt["read_seq"] for receipt in page["receipts"]} == {
        alice.user_id: 3,
        bob.user_id: 2,
        carol.user_id: 0,
    }
    assert page["has_more"] is False
    assert [receipt["read_at"] is not None for receipt in page["receipts"]] == [False, True, False]
    first = (await alice.get(f"{path}/receipts", limit=2)).json()
    rest = (await alice.get(f"{path}/receipts", limit=2, after=first["receipts"][-1]["user_id"])).json()
    assert first["has_more"] is True
    assert first["receipts"] + rest["receipts"] == page["receipts"]
    assert_problem(await alice.get(f"{path}/receipts", after="a b"), 422, "invalid", field="after")
    assert_problem(await alice.get(f"{path}/receipts", limit=0), 422, "invalid", field="limit")
