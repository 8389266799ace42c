"""The WebSocket protocol at its edges: handshakes, frames, requests, and what each mistake ends in."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from api.methods import METHODS
from api.sessions import SessionLimits
from tests.api.sockets import (
    Client,
    OpenWorld,
    World,
    eventually,
    message,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)

CLOSED = 3502


async def _ticket(world: World, user_id: str) -> str:
    principal = world.context.authenticator.verify(world.token(user_id))
    return await world.context.tickets.issue(principal)


# -- handshake and connect ----------------------------------------------------------------------------------


async def test_connect_answers_with_the_session(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        assert bob.connection.subprotocol == "riverrun.v1.json"
        assert bob.hello["user_id"] == "bob"
        assert bob.hello["recovered"] is False
        assert bob.hello["ping_s"] == 25
        assert bob.hello["session_id"]
        assert bob.hello["cursor"]


async def test_a_client_without_a_subprotocol_is_let_in(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.open(subprotocols=None)
        assert "ok" in await bob.request("connect", token=world.token("bob"))
        assert bob.connection.subprotocol is None


async def test_a_client_of_another_subprotocol_is_refused_at_the_handshake(open_world: OpenWorld) -> None:
    async with open_world() as world:
        with pytest.raises(InvalidStatus) as refusal:
            await world.open(subprotocols=[Subprotocol("graphql-ws")])
        assert refusal.value.response.status_code == 400
        assert json.loads(refusal.value.response.body or b"")["code"] == "invalid"


async def test_the_handshake_may_name_the_user_by_a_header_or_a_ticket(open_world: OpenWorld) -> None:
    async with open_world() as world:
        by_header = await world.open(additional_headers={"Authorization": f"Bearer {world.token('bob')}"})
        assert (await by_header.request("connect"))["ok"]["user_id"] == "bob"
        ticket = await _ticket(world, "carol")
        by_ticket = await world.open(f"?ticket={ticket}")
        assert (await by_ticket.request("connect", device_id="tablet"))["ok"]["user_id"] == "carol"
        again = await world.open(f"?ticket={ticket}")
        assert await again.closed() == 3500


async def test_a_token_in_the_url_is_refused(open_world: OpenWorld) -> None:
    async with open_world() as world:
        with pytest.raises(InvalidStatus) as refusal:
            await world.open(f"?token={world.token('bob')}")
        assert refusal.value.response.status_code == 401


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({}, "unauthenticated"), ({"token": "nonsense"}, "unauthenticated"), ({"token": ""}, "unauthenticated")],
)
async def test_who_names_nobody_is_told_and_closed(open_world: OpenWorld, parameters: Any, code: str) -> None:
    async with open_world() as world:
        nobody = await world.open()
        assert (await nobody.request("connect", **parameters))["error"]["code"] == code
        assert await nobody.closed() == 3500


async def test_an_expired_token_is_told_and_closed(open_world: OpenWorld) -> None:
    async with open_world() as world:
        late = await world.open()
        answer = await late.request("connect", token=world.token("bob", ttl_s=-5))
        assert answer["error"]["code"] == "token_expired"
        assert await late.closed() == 3500
        by_header = await world.open(additional_headers={"Authorization": f"Bearer {world.token('bob', ttl_s=-5)}"})
        assert await by_header.closed() == 3500


@pytest.mark.parametrize(
    "parameters",
    [{"device_id": ""}, {"device_id": "x" * 65}, {"device_id": "a\nb"}, {"device_id": 5}, {"colour": "red"}],
)
async def test_a_malformed_connect_is_refused(open_world: OpenWorld, parameters: dict[str, Any]) -> None:
    async with open_world() as world:
        client = await world.open()
        answer = await client.request("connect", token=world.token("bob"), **parameters)
        assert answer["error"]["code"] == "invalid"
        assert await client.closed() == CLOSED


@pytest.mark.parametrize("cursor", ["", "nonsense", "AAAA", "a.b.c"])
async def test_a_cursor_recovers_nothing_yet_and_says_so(open_world: OpenWorld, cursor: str) -> None:
    async with open_world() as world:
        client = await world.open()
        answer = await client.request("connect", token=world.token("bob"), cursor=cursor)
        assert answer["ok"]["recovered"] is False


async def test_a_silent_newcomer_is_closed(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.websocket.CONNECT_S", 0.1)
    async with open_world() as world:
        client = await world.open()
        assert await client.closed() == CLOSED


async def test_requests_right_behind_connect_are_answered_after_it(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        client = await world.open()
        connect = {"id": 1, "connect": {"token": world.token("bob")}}
        await client.raw(json.dumps(connect) + "\n" + json.dumps({"id": 2, "send": message(conversation, "early")}))
        await client.raw(json.dumps({"id": 3, "ping": {}}))
        await client.until(lambda client: len(client.answers) == 3)
        assert client.answers[0]["id"] == 1
        assert {answer["id"] for answer in client.answers if "ok" in answer} == {1, 2, 3}


# -- requests -----------------------------------------------------------------------------------------------


async def test_several_requests_in_one_frame_are_answered_in_order(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        lines = [json.dumps({"id": 100 + i, "send": message(conversation, f"line {i}")}) for i in range(50)]
        lines.insert(25, json.dumps({"id": 500, "history": {"conversation_id": str(conversation)}}))
        await bob.raw("\n".join(lines) + "\n\n")
        await bob.until(lambda client: len(client.answers) == 52)
        ids = [answer["id"] for answer in bob.answers[1:]]
        assert ids == [*range(100, 125), 500, *range(125, 150)]
        assert [answer["ok"]["seq"] for answer in bob.answers[1:] if answer["id"] != 500] == list(range(1, 51))


async def test_more_requests_than_may_be_in_flight_are_all_answered(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        for i in range(1_000):
            await bob.raw(json.dumps({"id": 10 + i, "send": message(conversation, "x")}))
        await bob.until(lambda client: len(client.answers) == 1_001)
        assert [answer["ok"]["seq"] for answer in bob.answers[1:]] == list(range(1, 1_001))


async def test_a_repeated_send_is_a_duplicate_and_another_body_a_conflict(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        first = (await bob.send(conversation, "hello", "one"))["ok"]
        assert (await bob.send(conversation, "hello", "one"))["ok"] == {**first, "duplicate": True}
        assert (await bob.send(conversation, "other", "one"))["error"]["code"] == "conflict"


async def test_history_and_events_are_read(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        ack = (await bob.send(conversation, "hello"))["ok"]
        history = await bob.request("history", conversation_id=str(conversation), after=0)
        assert [found["body"]["text"] for found in history["ok"]["messages"]] == ["hello"]
        events = await bob.request("events", conversation_id=str(conversation), after=1, limit=1)
        assert [event["version"] for event in events["ok"]["events"]] == [ack["version"]]


async def test_a_stranger_is_told_that_there_is_nothing(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        mallory = await world.connect("mallory")
        for id_ in (conversation, conversation + 1):
            answers = [
                await mallory.send(id_, "let me in"),
                await mallory.request("history", conversation_id=str(id_)),
                await mallory.request("events", conversation_id=str(id_)),
            ]
            assert [answer["error"]["code"] for answer in answers] == ["not_found"] * 3
        last = await world.post(conversation)
        bob = await world.connect("bob")
        last = await world.post(conversation)
        await bob.until(lambda client: client.versions(conversation) == [last])
        assert (await mallory.request("ping"))["ok"] == {}
        assert mallory.events == []


@pytest.mark.parametrize(
    ("method", "parameters", "field"),
    [
        ("send", {}, "client_msg_id"),
        ("send", {**message(1, "x"), "colour": "red"}, "colour"),
        ("send", {**message(1, "x"), "conversation_id": 1}, "conversation_id"),
        ("send", {**message(1, "x"), "conversation_id": "one"}, "conversation_id"),
        ("send", message(0, ""), "body.text"),
        ("send", message(0, "\x00"), "body.text"),
        ("history", {"conversation_id": "1", "limit": 0}, "limit"),
        ("history", {"conversation_id": "1", "before": 1, "after": 1}, "after"),
        ("events", {"conversation_id": "1", "after": -1}, "after"),
        ("ping", {"x": 1}, "x"),
        ("ping", [], None),
        ("edit", {}, None),
        ("x" * 500, {}, None),
    ],
)
async def test_a_request_that_cannot_be_is_refused_and_the_session_lives(
    open_world: OpenWorld, method: str, parameters: Any, field: str | None
) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        if method == "send" and parameters.get("conversation_id") == "0":
            parameters = {**parameters, "conversation_id": str(conversation)}
        await bob.raw(json.dumps({"id": 9, method: parameters}))
        await bob.until(lambda client: client.answers[-1]["id"] == 9)
        error = bob.answers[-1]["error"]
        assert error["code"] == "invalid"
        assert error["retryable"] is False
        assert field is None or error.get("field") == field
        if method == "edit":
            assert error["message"] == f"unknown method 'edit'; known: connect, {', '.join(METHODS)}"
        assert (await bob.request("ping"))["ok"] == {}


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "\n",
        "{}",
        "[]",
        "7",
        "not json",
        '{"id":7',
        '{"ping":{}}',
        '{"id":null,"ping":{}}',
        '{"id":"7","ping":{}}',
        '{"id":-7,"ping":{}}',
        '{"id":7.5,"ping":{}}',
        '{"id":9007199254740993,"ping":{}}',
        '{"id":7}',
        '{"id":7,"ping":{},"history":{}}',
        '{"id":7,"ping":{},"ping":{}}',
        '{"id":7,"id":8,"ping":{}}',
        '{"id":7,"ping":' + "[" * 20_000 + "]" * 20_000 + "}",
        b'{"id":7,"ping":{}}',
    ],
)
async def test_a_frame_that_is_no_request_ends_the_session(open_world: OpenWorld, frame: str | bytes) -> None:
    async with open_world() as world:
        bob, carol = await world.connect("bob"), await world.connect("carol")
        await bob.raw(frame)
        assert await bob.closed() == CLOSED
        assert bob.connection.close_reason
        assert (await carol.request("ping"))["ok"] == {}


async def test_a_frame_that_is_not_utf8_ends_the_session(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        await bob.connection.send(b'{"id":7,"ping":"\xff"}', text=True)
        assert await bob.closed() == CLOSED


@pytest.mark.parametrize("size", [65_537, 70_000, 2_000_000])
async def test_a_frame_that_is_too_large_ends_the_session(open_world: OpenWorld, size: int) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        await bob.raw('{"id":7,"ping":"' + "x" * (size - 18) + '"}')
        assert await bob.closed() == 3503


async def test_the_largest_frame_is_taken(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        await bob.raw('{"id":7,"ping":"' + "x" * (65_536 - 18) + '"}')
        await bob.until(lambda client: client.answers[-1]["id"] == 7)
        assert bob.answers[-1]["error"]["code"] == "invalid"


async def test_a_second_connect_is_refused_and_ends_the_session(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        assert (await bob.request("connect", token=world.token("bob")))["error"]["code"] == "invalid"
        assert await bob.closed() == CLOSED


async def test_anything_before_connect_ends_the_session(open_world: OpenWorld) -> None:
    async with open_world() as world:
        client = await world.open()
        await client.raw('{"id":1,"ping":{}}')
        assert await client.closed() == CLOSED


async def test_one_session_more_than_a_user_may_have_is_refused(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(per_user=2)) as world:
        first, _ = await world.connect("bob"), await world.connect("bob")
        third = await world.open()
        answer = await third.request("connect", token=world.token("bob"))
        assert answer["error"]["code"] == "rate_limited"
        assert await third.closed() == 3504
        await world.connect("carol")
        await first.close()
        async with asyncio.timeout(10):
            while world.gateway.session_count == 3:
                await asyncio.sleep(0.005)
        assert isinstance(await world.connect("bob"), Client)


async def test_one_session_more_than_a_gateway_holds_is_sent_away_until_there_is_room(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(in_all=2)) as world:
        first, _ = await world.connect("bob"), await world.connect("carol")
        third = await world.open()
        answer = await third.request("connect", token=world.token("dave"))
        assert (answer["error"]["code"], answer["error"]["retryable"]) == ("unavailable", True)
        assert await third.closed() == 3011
        async with httpx.AsyncClient() as client:
            stream = await client.get(
                f"{world.url}/v1/stream", headers={"authorization": f"Bearer {world.token('dave')}"}
            )
        assert (stream.status_code, stream.json()["code"]) == (503, "unavailable")
        assert world.gateway.session_count == 2  # those who were refused left nothing
        await first.close()
        await eventually(lambda: world.gateway.session_count == 1)
        assert isinstance(await world.connect("dave"), Client)
