"""Messages and events through HTTP: posted once, in order, read back as they were."""

import asyncio

import pytest

from tests.api.conftest import User, assert_problem, message


async def test_a_message_is_acked_and_read_back(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    path = f"/v1/conversations/{conversation}/messages"
    body = message("hello", mentions=[bob.user_id])
    response = await alice.post(path, body)
    assert response.status_code == 201
    ack = response.json()
    assert set(ack) == {"message_id", "conversation_id", "seq", "version", "created_at", "duplicate"}
    assert (ack["conversation_id"], ack["seq"], ack["version"], ack["duplicate"]) == (conversation, 1, 2, False)
    page = (await bob.get(path, min_version=ack["version"])).json()
    assert page == {
        "messages": [
            {
                "message_id": ack["message_id"],
                "conversation_id": conversation,
                "seq": 1,
                "version": 2,
                "sender_id": alice.user_id,
                "client_msg_id": body["client_msg_id"],
                "created_at": ack["created_at"],
                "body": {"type": "text", "text": "hello"},
                "reply_to": None,
                "mentions": [bob.user_id],
                "edited_at": None,
                "recalled_at": None,
                "reactions": {},
            }
        ],
        "has_more": False,
    }


async def test_a_repeated_message_is_the_first(alice: User) -> None:
    path = f"/v1/conversations/{await alice.open_group()}/messages"
    body = message("once")
    first, again = await alice.post(path, body), await alice.post(path, body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {**first.json(), "duplicate": True}
    assert len((await alice.get(path)).json()["messages"]) == 1


async def test_repeats_that_race_are_one_message(alice: User) -> None:
    path = f"/v1/conversations/{await alice.open_group()}/messages"
    body = message("once")
    answers = await asyncio.gather(*(alice.post(path, body) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["message_id"] for answer in answers}) == 1


async def test_a_client_msg_id_of_another_message_is_a_conflict(alice: User, bob: User) -> None:
    path = f"/v1/conversations/{await alice.open_group(bob)}/messages"
    body = message("one")
    assert (await alice.post(path, body)).status_code == 201
    for other in ({"body": {"type": "text", "text": "two"}}, {"mentions": [bob.user_id]}):
        assert_problem(await alice.post(path, body | other), 409, "conflict", field="client_msg_id")
    assert (await bob.post(path, body)).status_code == 201  # another sender's ids are their own
    assert [found["seq"] for found in (await bob.get(path)).json()["messages"]] == [1, 2]


async def test_a_reply_names_a_message_of_the_conversation(alice: User) -> None:
    conversation = await alice.open_group()
    first = await alice.say(conversation, "question")
    await alice.say(conversation, "answer", reply_to=first["message_id"])
    page = (await alice.get(f"/v1/conversations/{conversation}/messages")).json()
    assert [found["reply_to"] for found in page["messages"]] == [None, first["message_id"]]


async def test_history_is_read_in_both_directions(alice: User) -> None:
    conversation = await alice.open_group()
    path = f"/v1/conversations/{conversation}/messages"
    for number in range(1, 8):
        await alice.say(conversation, f"message {number}")

    async def seqs(**query: int) -> tuple[list[int], bool]:
        page = (await alice.get(path, **query)).json()
        assert [found["body"]["text"] for found in page["messages"]] == [
            f"message {found['seq']}" for found in page["messages"]
        ]
        return [found["seq"] for found in page["messages"]], page["has_more"]

    assert await seqs() == ([1, 2, 3, 4, 5, 6, 7], False)
    assert await seqs(limit=3) == ([5, 6, 7], True)
    assert await seqs(before=5, limit=3) == ([2, 3, 4], True)
    assert await seqs(before=2, limit=3) == ([1], False)
    assert await seqs(before=1) == ([], False)
    assert await seqs(after=0, limit=3) == ([1, 2, 3], True)
    assert await seqs(after=3, limit=4) == ([4, 5, 6, 7], False)
    assert await seqs(after=7) == ([], False)
    assert await seqs(after=2**63 - 1) == ([], False)
    assert await seqs(before=2**63 - 1, limit=1) == ([7], True)


async def test_events_fill_a_gap_in_order(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    path = f"/v1/conversations/{conversation}"
    ack = await alice.say(conversation, "one")
    await alice.patch(path, {"name": "Rapids"})
    await alice.post(f"{path}/members", {"remove": [bob.user_id]})
    page = (await alice.get(f"{path}/events")).json()
    assert [(event["version"], event["type"]) for event in page["events"]] == [
        (1, "conversation.created"),
        (2, "message.posted"),
        (3, "conversation.updated"),
        (4, "member.removed"),
    ]
    posted = page["events"][1]
    assert set(posted) == {"type", "conversation_id", "version", "occurred_at", "actor_id", "data"}
    assert (posted["data"]["message_id"], posted["actor_id"]) == (ack["message_id"], alice.user_id)
    assert not page["has_more"]
    part = (await alice.get(f"{path}/events", after=1, limit=2)).json()
    assert part == {"events": page["events"][1:3], "has_more": True}
    assert_problem(await bob.get(f"{path}/events", min_version=4), 404, "not_found")


async def test_a_version_that_is_not_there_is_unavailable(alice: User) -> None:
    path = f"/v1/conversations/{await alice.open_group()}"
    for part in ("", "/members", "/messages", "/events"):
        assert_problem(await alice.get(path + part, min_version=99), 503, "unavailable")


@pytest.mark.parametrize("senders", [5])
async def test_messages_of_many_have_no_hole_and_no_double(alice: User, bob: User, senders: int) -> None:
    conversation = await alice.open_group(bob)
    acks = await asyncio.gather(
        *(user.say(conversation, f"{number}") for number in range(senders) for user in (alice, bob))
    )
    assert sorted(ack["seq"] for ack in acks) == list(range(1, 2 * senders + 1))
    newest = max(ack["version"] for ack in acks)
    page = (await bob.get(f"/v1/conversations/{conversation}/messages", min_version=newest)).json()
    by_seq = {found["seq"]: found["message_id"] for found in page["messages"]}
    assert by_seq == {ack["seq"]: ack["message_id"] for ack in acks}


async def test_who_wrote_is_never_given_an_older_page_after_a_newer_one(alice: User) -> None:
    conversation = await alice.open_group()
    path = f"/v1/conversations/{conversation}/messages"
    for number in range(1, 40):
        await alice.say(conversation, f"message {number}")
        for _ in range(3):  # from Postgres, or from Valkey, which has it a moment later
            page = (await alice.get(path, limit=2)).json()
            assert page["messages"][-1]["seq"] == number
