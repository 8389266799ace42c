"""The admins' doors into the past: what they show, to whom, and that a look leaves a line in the log."""

import secrets
from datetime import UTC, datetime

import httpx
import pytest

from tests.api.conftest import User, assert_problem
from tests.running import Running


@pytest.fixture
def admin(client: httpx.AsyncClient, running: Running) -> User:
    user_id = f"admin-{secrets.token_hex(6)}"
    return User(client, user_id, running.token(user_id, admin=True))


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


async def test_everything_is_shown_as_it_was(admin: User, alice: User, bob: User, running: Running) -> None:
    id_ = await alice.open_group(bob, name="Rapids")
    first = await alice.say(id_, "one")
    await bob.post(f"/v1/conversations/{id_}/read", {"seq": 1})
    between = now()
    told = (await bob.get("/v1/inbox")).json()["conversations"]
    await alice.say(id_, "two")
    await alice.patch(f"/v1/conversations/{id_}", {"name": "Falls"})
    await alice.post(f"/v1/conversations/{id_}/members", {"remove": [bob.user_id]})

    path = f"/v1/admin/conversations/{id_}"
    seen = (await admin.get(path, at=between)).json()
    assert (seen["conversation"]["name"], seen["conversation"]["last_seq"]) == ("Rapids", 1)
    assert seen["last_message"]["message_id"] == first["message_id"]
    assert {member["user_id"] for member in seen["members"]} == {alice.user_id, bob.user_id}
    assert (await admin.get(path, version=seen["as_of"]["version"])).json() == seen
    page = (await admin.get(path, at=between, limit=1)).json()
    assert ([member["user_id"] for member in page["members"]], page["has_more"]) == ([alice.user_id], True)
    assert (await admin.get(path, at=now())).json()["conversation"]["name"] == "Falls"

    membership = (await admin.get(f"{path}/members/{bob.user_id}", at=between)).json()
    assert (membership["is_member"], membership["read_seq"], membership["unread"]) == (True, 1, 0)
    membership = (await admin.get(f"{path}/members/{bob.user_id}", version=5)).json()
    assert (membership["is_member"], membership["left_version"]) == (False, 5)

    inbox = f"/v1/admin/users/{bob.user_id}/inbox"
    assert (await admin.get(inbox, at=between)).json()["conversations"] == told
    assert (await admin.get(inbox, at=now())).json()["conversations"] == []
    assert "an admin looks at the past" in running.output()
    assert admin.user_id in running.output()


async def test_only_admins_are_shown_the_past_and_bad_questions_are_refused(admin: User, alice: User) -> None:
    id_ = await alice.open_group()
    path, inbox = f"/v1/admin/conversations/{id_}", f"/v1/admin/users/{alice.user_id}/inbox"
    for asked in (path, f"{path}/members/{alice.user_id}", inbox):
        assert_problem(await alice.get(asked, at=now()), 403, "forbidden")
    assert_problem(await admin.get(path), 422, "invalid", field="at")
    assert_problem(await admin.get(path, at=now(), version=1), 422, "invalid", field="at")
    assert_problem(await admin.get(path, at="2026-01-01T00:00:00"), 422, "invalid", field="at")
    assert_problem(await admin.get(path, version=99), 422, "invalid", field="version")
    assert_problem(await admin.get(path, at="2020-01-01T00:00:00Z"), 404, "not_found")
    assert_problem(await admin.get("/v1/admin/conversations/12345", version=1), 404, "not_found")
    assert_problem(await admin.get(inbox), 422, "invalid", field="at")
