"""The export of a conversation, line by line."""

import json

from tests.api.conftest import User, assert_problem


async def test_all_messages_are_exported_in_order_and_the_end_is_said(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    for number in range(205):  # more than a page
        ack = await alice.say(conversation, f"message\n{number}")
    path = f"/v1/conversations/{conversation}"
    page = (await alice.get(f"{path}/messages", limit=200, min_version=ack["version"])).json()["messages"]
    response = await bob.get(f"{path}/export")
    assert response.headers["content-type"].startswith("application/x-ndjson")
    *messages, end = [json.loads(line) for line in response.text.splitlines()]
    assert [line["message"]["seq"] for line in messages] == list(range(1, 206))
    assert [line["message"] for line in messages[5:]] == page
    assert end == {"end": {"last_seq": 205, "tiers": ["warm"]}}

    rest = [json.loads(line) for line in (await bob.get(f"{path}/export", after=204)).text.splitlines()]
    assert rest == [messages[-1], end]
    nothing = [json.loads(line) for line in (await bob.get(f"{path}/export", after=205)).text.splitlines()]
    assert nothing == [end]


async def test_a_stranger_exports_nothing(alice: User, bob: User, mallory: User) -> None:
    conversation = await alice.open_group(bob)
    assert_problem(await mallory.get(f"/v1/conversations/{conversation}/export"), 404, "not_found")


async def test_pages_say_which_tiers_they_are_from(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    for path in ("messages", "events"):
        response = await bob.get(f"/v1/conversations/{conversation}/{path}")
        assert response.headers["riverrun-tiers"] == "warm"


async def test_one_finds_what_was_said_to_one_and_nobody_else_does(alice: User, bob: User, mallory: User) -> None:
    conversation = await alice.open_group(bob)
    for text in ("The Ferry leaves", "nothing", "ferryman"):
        ack = await alice.say(conversation, text)
    await bob.get(f"/v1/conversations/{conversation}", min_version=ack["version"])
    response = await bob.get("/v1/search", q="FERRY", limit=1)
    assert response.headers["riverrun-tiers"] == "warm"
    first = response.json()
    rest = (await bob.get("/v1/search", q="FERRY", limit=1, before=first["before"])).json()
    assert [page["messages"][0]["body"]["text"] for page in (first, rest)] == ["ferryman", "The Ferry leaves"]
    assert rest["before"] is None
    assert (await mallory.get("/v1/search", q="ferry")).json() == {"messages": [], "before": None}
    query = {"q": "ferry", "conversation_id": conversation}
    assert_problem(await mallory.get("/v1/search", **query), 404, "not_found")
    assert_problem(await bob.get("/v1/search", q="a\0"), 422, "invalid", field="q")
    assert_problem(await bob.get("/v1/search", q=""), 422, "invalid", field="q")
