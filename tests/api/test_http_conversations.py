"""Conversations and their members through HTTP."""

import asyncio
import secrets

import pytest

from tests.api.conftest import NewUser, User, assert_problem, message

UNKNOWN_ID = "7000000000000000001"


async def test_a_group_is_opened_and_read_back(alice: User, bob: User) -> None:
    body = {"kind": "group", "name": "Rapids", "members": [bob.user_id], "settings": {"invite": "members"}}
    response = await alice.post("/v1/conversations", body)
    assert response.status_code == 201
    opened = response.json()
    assert opened["conversation_id"].isdigit()
    assert response.headers["location"] == f"/v1/conversations/{opened['conversation_id']}"
    assert {name: opened[name] for name in ("kind", "name", "settings", "created_by", "version", "last_seq")} == {
        "kind": "group",
        "name": "Rapids",
        "settings": {"post": "members", "invite": "members"},
        "created_by": alice.user_id,
        "version": 1,
        "last_seq": 0,
    }
    for member in (alice, bob):  # both at once, without waiting: a read waits for one's own writes
        assert (await member.get(response.headers["location"])).json() == opened


async def test_a_pair_has_one_direct_conversation(alice: User, bob: User) -> None:
    first = await alice.post("/v1/conversations", {"kind": "direct", "members": [bob.user_id]})
    assert first.status_code == 201
    again = await bob.post("/v1/conversations", {"kind": "direct", "members": [alice.user_id, bob.user_id]})
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]


async def test_a_pair_that_races_gets_one_direct_conversation(alice: User, bob: User) -> None:
    tries = [
        caller.post("/v1/conversations", {"kind": "direct", "members": [other.user_id]})
        for _ in range(5)
        for caller, other in ((alice, bob), (bob, alice))
    ]
    answers = await asyncio.gather(*tries)
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["conversation_id"] for answer in answers}) == 1


async def test_the_same_client_conversation_id_is_the_same_conversation(alice: User, bob: User) -> None:
    body = {"kind": "group", "members": [bob.user_id], "client_conversation_id": secrets.token_hex(8)}
    first, again = await alice.post("/v1/conversations", body), await alice.post("/v1/conversations", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert (await bob.post("/v1/conversations", body | {"members": [alice.user_id]})).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"members": []}, "kind"),
        ({"kind": "group"}, "members"),
        ({"kind": "room", "members": []}, "kind"),
        ({"kind": "group", "members": ["a b"]}, "members"),
        ({"kind": "group", "members": [f"user{i}" for i in range(1001)]}, "members"),
        ({"kind": "group", "members": [], "name": ""}, "name"),
        ({"kind": "group", "members": [], "name": "a\nb"}, "name"),
        ({"kind": "group", "members": [], "name": "x" * 201}, "name"),
        ({"kind": "group", "members": [], "settings": {"colour": "red"}}, "settings.colour"),
        ({"kind": "group", "members": [], "settings": {"post": "bots"}}, "settings.post"),
        ({"kind": "group", "members": [], "client_conversation_id": " "}, "client_conversation_id"),
        ({"kind": "group", "members": [], "owner": "me"}, "owner"),
        ({"kind": "direct", "members": []}, "members"),
        ({"kind": "direct", "members": ["one", "two"]}, "members"),
        ({"kind": "direct", "members": ["one"], "name": "us"}, "name"),
        ({"kind": "direct", "members": ["one"], "settings": {"post": "admins"}}, "settings"),
    ],
)
async def test_a_conversation_that_cannot_be_is_refused(alice: User, body: dict[str, object], field: str) -> None:
    assert_problem(await alice.post("/v1/conversations", body), 422, "invalid", field=field)


async def test_a_conversation_is_renamed_by_its_owner_only(alice: User, bob: User) -> None:
    path = f"/v1/conversations/{await alice.open_group(bob, name='before')}"
    assert_problem(await bob.patch(path, {"name": "mine"}), 403, "forbidden")
    changed = await alice.patch(path, {"name": "after", "settings": {"post": "admins"}})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["settings"]["post"]) == ("after", "admins")
    assert changed.json()["version"] == 2
    assert (await alice.get(path)).json() == changed.json()
    assert (await alice.patch(path, {})).json()["version"] == 2  # nothing changes, nothing is written
    assert_problem(await alice.patch(path, {"name": None}), 422, "invalid", field="name")
    assert_problem(await bob.post(f"{path}/messages", message()), 403, "forbidden")


async def test_members_come_and_go(alice: User, bob: User, new_user: NewUser) -> None:
    carol = new_user("carol")
    path = f"/v1/conversations/{await alice.open_group(bob)}"
    members = f"{path}/members"
    changed = await alice.post(members, {"add": [carol.user_id], "remove": [bob.user_id], "roles": {}})
    assert changed.status_code == 200
    assert changed.json()["member_count"] == 2
    page = (await alice.get(members)).json()
    assert {member["user_id"]: member["role"] for member in page["members"]} == {
        alice.user_id: "owner",
        carol.user_id: "member",
    }
    assert (await carol.get(path)).status_code == 200
    assert_problem(await bob.get(path, min_version=3), 404, "not_found")
    assert (await alice.post(members, {"roles": {carol.user_id: "admin"}})).status_code == 200
    assert (await carol.get(members, min_version=4)).json()["members"][1]["role"] == "admin"
    assert (await carol.post(members, {"remove": [carol.user_id]})).status_code == 200  # one may always leave
    assert_problem(await carol.post(f"{path}/messages", message()), 404, "not_found")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"add": ["a b"]}, "add"),
        ({"remove": [""]}, "remove"),
        ({"add": ["x"], "remove": ["x"]}, "remove"),
        ({"add": "bob"}, "add"),
        ({"add": [f"user{i}" for i in range(1001)]}, "add"),
        ({"roles": {"a b": "admin"}}, "roles"),
        ({"roles": {"x": "owner"}}, "roles"),
        ({"roles": {"x": "admin"}}, "roles.x"),
        ({"kick": ["bob"]}, "kick"),
    ],
)
async def test_a_change_of_members_that_cannot_be_is_refused(
    alice: User, changes: dict[str, object], field: str
) -> None:
    path = f"/v1/conversations/{await alice.open_group()}"
    assert_problem(await alice.post(f"{path}/members", changes), 422, "invalid", field=field)
    assert (await alice.get(path)).json()["version"] == 1


async def test_what_a_role_may_not_do_is_forbidden(alice: User, bob: User, mallory: User) -> None:
    members = f"/v1/conversations/{await alice.open_group(bob)}/members"
    assert_problem(await bob.post(members, {"add": [mallory.user_id]}), 403, "forbidden")
    assert_problem(await bob.post(members, {"roles": {bob.user_id: "admin"}}), 403, "forbidden", field="roles")
    assert_problem(await bob.post(members, {"remove": [alice.user_id]}), 403, "forbidden")


async def test_members_are_read_page_by_page(alice: User, new_user: NewUser) -> None:
    others = [new_user(f"u{i}") for i in range(6)]
    path = f"/v1/conversations/{await alice.open_group(*others)}/members"
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await alice.get(path, limit=3, **after)).json()
        seen += [member["user_id"] for member in page["members"]]
        if not page["has_more"]:
            break
        after = {"after": seen[-1]}
    assert seen == sorted(user.user_id for user in [alice, *others])


async def test_a_stranger_cannot_tell_a_conversation_from_none(alice: User, mallory: User) -> None:
    there = await alice.open_group()
    await alice.say(there, "secret")
    calls = [
        ("GET", "", None),
        ("GET", "/members", None),
        ("GET", "/messages", None),
        ("GET", "/events?after=0", None),
        ("PATCH", "", {"name": "mine"}),
        ("POST", "/members", {"add": [mallory.user_id]}),
        ("POST", "/messages", message()),
    ]
    for method, path, body in calls:
        answers = [
            await mallory.request(method, f"/v1/conversations/{id_}{path}", json=body) for id_ in (there, UNKNOWN_ID)
        ]
        for answer in answers:
            assert_problem(answer, 404, "not_found")
        assert answers[0].content == answers[1].content
