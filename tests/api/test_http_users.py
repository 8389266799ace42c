"""Users through HTTP: profiles, blocks, devices and own settings, at their limits and beyond."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import NewUser, User, assert_problem, message

# -- profiles -----------------------------------------------------------------------------------------------

EMPTY: dict[str, Any] = {"display_name": None, "avatar_url": None, "attributes": {}}


async def test_a_profile_is_changed_in_parts_and_cleared(alice: User) -> None:
    assert (await alice.get("/v1/profile")).json() == {"user_id": alice.user_id, **EMPTY}
    full = {"display_name": "Ann 🌊", "avatar_url": "https://example.org/a.png", "attributes": {"pronouns": "she/her"}}
    for change, expected in (
        (full, full),
        ({}, full),
        ({"display_name": None}, {**full, "display_name": None}),
        ({"attributes": {"a": "b"}}, {**full, "display_name": None, "attributes": {"a": "b"}}),
        ({"avatar_url": None, "attributes": {}}, EMPTY),
    ):
        response = await alice.patch("/v1/profile", change)
        assert response.status_code == 200, response.text
        assert response.json() == {"user_id": alice.user_id, **expected}
        assert (await alice.get("/v1/profile")).json() == response.json()


@pytest.mark.parametrize(
    "change",
    [
        {"display_name": "x" * 100},
        {"display_name": "🌊" * 100},
        {"avatar_url": "http://" + "a" * 2041},
        {"attributes": {f"a{i}": "x" for i in range(32)}},
        {"attributes": {"k" * 64: "x" * 512}},
        {"attributes": {f"a{i}": "x" * 509 for i in range(16)}},
    ],
)
async def test_a_profile_may_be_as_large_as_this(alice: User, change: dict[str, Any]) -> None:
    response = await alice.patch("/v1/profile", change)
    assert response.status_code == 200, response.text
    assert response.json() == {"user_id": alice.user_id, **EMPTY, **change}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"display_name": ""}, "display_name"),
        ({"display_name": "   "}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"display_name": "a\u0000"}, "display_name"),
        ({"display_name": "x" * 101}, "display_name"),
        ({"display_name": 1}, "display_name"),
        ({"avatar_url": ""}, "avatar_url"),
        ({"avatar_url": "javascript:alert(1)"}, "avatar_url"),
        ({"avatar_url": "https://exa mple.org"}, "avatar_url"),
        ({"avatar_url": "https://exämple.org"}, "avatar_url"),
        ({"avatar_url": "http://" + "a" * 2042}, "avatar_url"),
        ({"attributes": None}, "attributes"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {f"a{i}": "x" for i in range(33)}}, "attributes"),
        ({"attributes": {f"a{i}": "x" * 511 for i in range(17)}}, "attributes"),
        ({"attributes": {"k": "x" * 513}}, "attributes.k"),
        ({"attributes": {"k": "a\u0000b"}}, "attributes.k"),
        ({"attributes": {"": "x"}}, "attributes."),
        ({"attributes": {"a b": "x"}}, "attributes.a b"),
        ({"attributes": {"k" * 65: "x"}}, "attributes." + "k" * 64),
        ({"attributes": {"k": 1}}, "attributes"),
        ({"user_id": "somebody-else"}, "user_id"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_profile_that_cannot_be_is_refused(alice: User, change: dict[str, Any], field: str) -> None:
    assert_problem(await alice.patch("/v1/profile", change), 422, "invalid", field=field)
    assert (await alice.get("/v1/profile")).json() == {"user_id": alice.user_id, **EMPTY}


async def test_a_lone_surrogate_in_a_profile_is_refused(alice: User) -> None:
    raw = b'{"attributes":{"k":"\\ud800"}}'
    response = await alice.request("PATCH", "/v1/profile", content=raw, headers={"content-type": "application/json"})
    assert_problem(response, 422, "invalid")


async def test_a_profile_is_shown_to_those_one_talks_with(alice: User, bob: User, mallory: User) -> None:
    assert (await alice.patch("/v1/profile", {"display_name": "Ann"})).is_success
    path = f"/v1/users/{alice.user_id}"
    assert_problem(await bob.get(path), 404, "not_found")
    await bob.open_group(alice)
    assert (await bob.get(path)).json() == (await alice.get("/v1/profile")).json()
    assert (await alice.get(f"/v1/users/{bob.user_id}")).json() == {"user_id": bob.user_id, **EMPTY}
    assert (await alice.get(path)).json()["display_name"] == "Ann"
    assert_problem(await mallory.get(path), 404, "not_found")
    assert_problem(await mallory.get("/v1/users/nobody-of-this-name"), 404, "not_found")
    assert_problem(await bob.get("/v1/users/a%20b"), 422, "invalid", field="user_id")


# -- blocks -------------------------------------------------------------------------------------------------


async def _block(user: User, other: User, *, method: str = "PUT") -> httpx.Response:
    response = await user.request(method, f"/v1/blocks/{other.user_id}")
    assert response.status_code == 200, response.text
    return response


async def _open_direct(user: User, other: User) -> httpx.Response:
    return await user.post("/v1/conversations", {"kind": "direct", "members": [other.user_id]})


def _refusal(response: httpx.Response) -> dict[str, Any]:
    problem = assert_problem(response, 403, "forbidden")
    assert "block" not in response.text.lower()
    return problem


async def test_who_is_blocked_is_listed_to_the_blocker_only(alice: User, bob: User) -> None:
    assert (await alice.get("/v1/blocks")).json() == {"blocks": []}
    for _ in range(2):
        assert (await _block(alice, bob)).json() == {"user_id": bob.user_id, "blocked": True}
    assert [block["user_id"] for block in (await alice.get("/v1/blocks")).json()["blocks"]] == [bob.user_id]
    assert (await bob.get("/v1/blocks")).json() == {"blocks": []}
    for _ in range(2):
        assert (await _block(alice, bob, method="DELETE")).json() == {"user_id": bob.user_id, "blocked": False}
    assert (await alice.get("/v1/blocks")).json() == {"blocks": []}


async def test_a_block_is_of_no_direction_and_says_nothing_of_itself(alice: User, bob: User, mallory: User) -> None:
    direct = (await _open_direct(alice, bob)).json()["conversation_id"]
    path = f"/v1/conversations/{direct}/messages"
    await _block(alice, bob)
    await _block(mallory, bob)
    refusals = [_refusal(await user.post(path, message())) for user in (alice, bob)]
    refusals += [_refusal(await _open_direct(mallory, bob)), _refusal(await _open_direct(bob, mallory))]
    assert all(refusal == refusals[0] for refusal in refusals)
    for user in (alice, bob):
        assert (await _open_direct(user, {alice: bob, bob: alice}[user])).status_code == 200
        assert (await user.get(path)).json()["messages"] == []
        assert (await user.get(f"/v1/conversations/{direct}")).json()["version"] == 1
    await _block(alice, bob, method="DELETE")
    await _block(mallory, bob, method="DELETE")
    for user in (alice, bob):
        assert (await user.post(path, message())).status_code == 201
    assert (await _open_direct(bob, mallory)).status_code == 201


async def test_a_block_stands_until_both_have_taken_theirs_back(alice: User, bob: User) -> None:
    await _block(alice, bob)
    await _block(bob, alice)
    await _block(alice, bob, method="DELETE")
    _refusal(await _open_direct(alice, bob))
    await _block(bob, alice, method="DELETE")
    assert (await _open_direct(alice, bob)).status_code == 201


async def test_a_message_acked_before_the_block_stays_acked(alice: User, bob: User) -> None:
    path = f"/v1/conversations/{(await _open_direct(alice, bob)).json()['conversation_id']}/messages"
    body = message("before")
    first = await bob.post(path, body)
    assert first.status_code == 201
    await _block(alice, bob)
    again = await bob.post(path, body)
    assert (again.status_code, again.json()) == (200, {**first.json(), "duplicate": True})


async def test_a_block_is_no_matter_in_a_group(alice: User, bob: User) -> None:
    await _block(alice, bob)
    conversation = await alice.open_group(bob)
    await bob.say(conversation, "hello")
    assert (await bob.get(f"/v1/users/{alice.user_id}")).status_code == 200


async def test_a_block_that_cannot_be_is_refused(alice: User) -> None:
    for method in ("PUT", "DELETE"):
        assert_problem(await alice.request(method, "/v1/blocks/a%20b"), 422, "invalid", field="user_id")
        assert_problem(await alice.request(method, "/v1/blocks/" + "x" * 65), 422, "invalid", field="user_id")
    assert_problem(await alice.request("PUT", f"/v1/blocks/{alice.user_id}"), 422, "invalid", field="user_id")
    response = await alice.request("PUT", "/v1/blocks/somebody", json={"reason": "x"})
    assert_problem(response, 422, "invalid", field="reason")
    assert (await alice.get("/v1/blocks")).json() == {"blocks": []}


# -- own settings -------------------------------------------------------------------------------------------


async def test_own_settings_are_changed_in_parts_and_seen_by_oneself(alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    path = f"/v1/conversations/{conversation}/settings"
    until = "2999-01-01T00:00:00.000Z"
    for change, expected in (
        ({"pinned": True}, {"muted_until": None, "pinned": True, "hidden": False}),
        ({"muted_until": until}, {"muted_until": until, "pinned": True, "hidden": False}),
        ({"muted_until": "2999-01-01T02:00:00+02:00"}, {"muted_until": until, "pinned": True, "hidden": False}),
        ({}, {"muted_until": until, "pinned": True, "hidden": False}),
        ({"muted_until": None, "hidden": True}, {"muted_until": None, "pinned": True, "hidden": True}),
    ):
        response = await alice.patch(path, change)
        assert response.status_code == 200, response.text
        assert response.json() == expected
    assert (await alice.get("/v1/inbox")).json()["conversations"] == []
    (entry,) = (await alice.get("/v1/inbox", hidden="true")).json()["conversations"]
    assert {name: entry[name] for name in ("muted", "muted_until", "pinned", "hidden")} == {
        "muted": False,
        "muted_until": None,
        "pinned": True,
        "hidden": True,
    }
    (entry,) = (await bob.get("/v1/inbox")).json()["conversations"]
    assert (entry["pinned"], entry["hidden"]) == (False, False)


async def test_a_mute_ends_by_itself(alice: User) -> None:
    conversation = await alice.open_group()
    for until, muted in (("2020-01-01T00:00:00Z", False), ("2999-01-01T00:00:00Z", True)):
        assert (await alice.patch(f"/v1/conversations/{conversation}/settings", {"muted_until": until})).is_success
        (entry,) = (await alice.get("/v1/inbox")).json()["conversations"]
        assert entry["muted"] is muted


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pinned": "yes"}, "pinned"),
        ({"pinned": None}, "pinned"),
        ({"pinned": 1}, "pinned"),
        ({"hidden": []}, "hidden"),
        ({"muted_until": "tomorrow"}, "muted_until"),
        ({"muted_until": 1_700_000_000}, "muted_until"),
        ({"muted_until": "2026-01-01T00:00:00"}, "muted_until"),
        ({"muted_until": "9999-12-31T23:59:59-10:00"}, "muted_until"),
        ({"muted_until": "0001-01-01T00:00:00+10:00"}, "muted_until"),
        ({"muted_until": "2026-13-01T00:00:00Z"}, "muted_until"),
        ({"muted_until": True}, "muted_until"),
        ({"muted": True}, "muted"),
        ({"post": "admins"}, "post"),
    ],
)
async def test_own_settings_that_cannot_be_are_refused(alice: User, change: dict[str, Any], field: str) -> None:
    conversation = await alice.open_group()
    path = f"/v1/conversations/{conversation}/settings"
    assert_problem(await alice.patch(path, change), 422, "invalid", field=field)
    (entry,) = (await alice.get("/v1/inbox")).json()["conversations"]
    assert (entry["muted_until"], entry["pinned"], entry["hidden"]) == (None, False, False)


@pytest.mark.parametrize("until", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
async def test_a_mute_may_end_at_the_ends_of_the_calendar(alice: User, until: str) -> None:
    conversation = await alice.open_group()
    response = await alice.patch(f"/v1/conversations/{conversation}/settings", {"muted_until": until})
    assert response.status_code == 200, response.text
    (entry,) = (await alice.get("/v1/inbox")).json()["conversations"]
    assert entry["muted_until"] == response.json()["muted_until"]


# -- what is nobody's ---------------------------------------------------------------------------------------


async def test_parameters_that_nobody_knows_are_refused(alice: User, new_user: NewUser) -> None:
    for path in ("/v1/profile", "/v1/devices", "/v1/blocks", f"/v1/users/{alice.user_id}"):
        assert_problem(await alice.get(path, colour="red"), 422, "invalid", field="colour")
    assert_problem(await alice.request("DELETE", "/v1/devices/none"), 404, "not_found")
