"""`riverrun trace` against a running server: what each kind of member got of a message, and why not."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.api.conftest import NewUser, User
from tests.api.sessions import (
    Sessions,
    sessions_fixture,  # noqa: F401  # the fixture `sessions`
)
from tests.api.sockets import Client, Json
from tests.running import Running

SECRET_TEXT = "a text that no trace shows"
BODY = {"type": "text", "text": "hello"}


class Tracer:
    """The command, on the running server."""

    def __init__(self, running: Running) -> None:
        self._running = running

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runtime.cli", "trace", *arguments, "--data-dir", str(self._running.data_dir)]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)

    async def lines(self, *arguments: str) -> list[str]:
        done = await self.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert SECRET_TEXT not in done.stdout
        return done.stdout.splitlines()

    async def why(self, message_id: str, user: User) -> str:
        """The last line: the sentence about one user."""
        last = (await self.lines(message_id, "--user", user.user_id))[-1].strip()
        assert last.startswith(f"⇒ {user.user_id} "), last
        return last.removeprefix(f"⇒ {user.user_id} ")

    async def json(self, *arguments: str) -> Json:
        done = await self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def tracer(running: Running) -> Tracer:
    return Tracer(running)


def _has(message_id: str) -> Any:
    return lambda client: any(event["data"].get("message_id") == message_id for event in client.events)


async def _received(client: Client, message_id: str) -> None:
    await client.until(_has(message_id))


async def test_a_member_who_is_online_was_sent_it(tracer: Tracer, sessions: Sessions, alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    phone = await sessions.open(bob, device_id="phone", device_kind="mobile")
    posted = await alice.say(conversation, SECRET_TEXT)
    await _received(phone, posted["message_id"])
    why = await tracer.why(posted["message_id"], bob)
    assert why.startswith("was sent it and has not marked it read: it was written to the websocket session ")
    assert phone.hello["session_id"] in why
    assert "of device phone" in why
    lines = await tracer.lines(posted["message_id"])
    assert lines[0].split(" · ")[0] == f"message {posted['message_id']}"
    for step in ("command", "append", "ack", "projection", "read model", "hot store", "fan-out", "push"):
        assert any(line[17:].startswith(step) for line in lines), step
    assert any(line.endswith("written to 1 sessions") for line in lines)


async def test_who_has_read_it_has_seen_it(tracer: Tracer, sessions: Sessions, alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    posted = await alice.say(conversation, SECRET_TEXT)
    client = await sessions.open(bob)
    await client.request("read", conversation_id=conversation, seq=posted["seq"])
    assert (await bob.get(f"/v1/conversations/{conversation}/receipts")).status_code == 200
    await _until(tracer, posted["message_id"], bob, "has seen it: has read up to seq 1 at ")


async def test_who_is_offline_was_not_sent_it_and_resuming_brings_it(
    tracer: Tracer, sessions: Sessions, alice: User, bob: User
) -> None:
    conversation = await alice.open_group(bob)
    posted = await alice.say(conversation, SECRET_TEXT)
    why = await tracer.why(posted["message_id"], bob)
    assert why.startswith("was not sent it: not connected when it was stored, nor since")

    client = await sessions.open(bob)
    why = await tracer.why(posted["message_id"], bob)
    assert why.startswith("was not pushed it: the websocket session ")
    assert client.hello["session_id"] in why
    await client.close()

    missed = await alice.say(conversation, SECRET_TEXT)
    again = await sessions.open(bob, cursor=client.hello["cursor"])
    assert again.hello["recovered"]
    await _received(again, missed["message_id"])
    why = await tracer.why(missed["message_id"], bob)
    assert "it was written, with what was missed, to the websocket session" in why
    sessions_of_bob = (await tracer.json(missed["message_id"], "--user", bob.user_id))["members"][0]["sessions"]
    assert [session["outcome"] for _, session in sessions_of_bob] == ["ended", "resumed"]


async def test_who_was_out_of_the_conversation_was_not_sent_it(
    tracer: Tracer, sessions: Sessions, alice: User, bob: User, mallory: User
) -> None:
    conversation = await alice.open_group(bob)
    before = await alice.say(conversation, SECRET_TEXT)
    client = await sessions.open(bob)
    members = f"/v1/conversations/{conversation}/members"
    assert (await alice.post(members, {"remove": [bob.user_id]})).status_code == 200
    during = await alice.say(conversation, SECRET_TEXT)
    assert (await alice.post(members, {"add": [bob.user_id]})).status_code == 200
    after = await alice.say(conversation, SECRET_TEXT)
    await _received(client, after["message_id"])

    why = await tracer.why(during["message_id"], bob)
    assert why.startswith("was not sent it: removed from the conversation at ")
    assert why.endswith("(version 3), before it, and put in again at version 5, after it.")
    assert (await tracer.why(after["message_id"], bob)).startswith("was sent it")
    assert (await tracer.why(before["message_id"], bob)).startswith("was not pushed it")
    assert await tracer.why(before["message_id"], mallory) == (
        "was not sent it: not a member of the conversation, then or now."
    )
    assert (await alice.post(members, {"add": [mallory.user_id]})).status_code == 200
    await _until(tracer, before["message_id"], mallory, "was not sent it: put into the conversation at ")


async def test_an_earlier_stay_is_found_in_the_log(tracer: Tracer, alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    members = f"/v1/conversations/{conversation}/members"
    in_first = await alice.say(conversation, SECRET_TEXT)
    for _ in range(2):
        assert (await alice.post(members, {"remove": [bob.user_id]})).status_code == 200
        out = await alice.say(conversation, SECRET_TEXT)
        assert (await alice.post(members, {"add": [bob.user_id]})).status_code == 200
    await _until(tracer, in_first["message_id"], bob, "was not sent it: not connected")
    stay = (await tracer.json(in_first["message_id"], "--user", bob.user_id))["members"][0]["stay"]
    assert (stay["is_member"], stay["joined_version"], stay["left_version"]) == (True, 1, 3)
    assert (await tracer.why(out["message_id"], bob)).startswith("was not sent it: removed from the conversation at ")


async def test_a_block_came_after_every_message_there_is(tracer: Tracer, alice: User, bob: User) -> None:
    opened = await alice.post("/v1/conversations", {"kind": "direct", "members": [bob.user_id]})
    conversation = opened.json()["conversation_id"]
    posted = await alice.say(conversation, SECRET_TEXT)
    assert (await bob.request("PUT", f"/v1/blocks/{alice.user_id}")).status_code in (200, 201, 204)
    assert (await bob.get("/v1/blocks")).text.count(alice.user_id) == 1
    refused = await alice.post(f"/v1/conversations/{conversation}/messages", {"client_msg_id": "x", "body": BODY})
    assert refused.status_code == 403
    lines = await tracer.lines(posted["message_id"], "--user", bob.user_id)
    assert any(line.strip().startswith(f"block       by {bob.user_id} since ") for line in lines)
    assert lines[-1].strip().startswith(f"⇒ {bob.user_id} was not sent it: not connected")


async def test_a_large_conversation_is_traced_member_by_member(
    tracer: Tracer, alice: User, bob: User, new_user: NewUser
) -> None:
    conversation = await alice.open_group(bob, *(new_user("member") for _ in range(60)))
    posted = await alice.say(conversation, SECRET_TEXT)
    await _until(tracer, posted["message_id"], bob, "was not sent it: not connected")
    lines = await tracer.lines(posted["message_id"])
    assert lines[-1] == "… and 12 more members; ask for one with --user"
    assert any(line[17:].startswith("fan-out     read, to 62 members") for line in lines)


async def test_one_correlation_id_goes_from_the_request_to_the_log_and_the_trace(
    tracer: Tracer, sessions: Sessions, alice: User, bob: User
) -> None:
    conversation = await alice.open_group(bob)
    response = await alice.request(
        "POST",
        f"/v1/conversations/{conversation}/messages",
        json={"client_msg_id": "mine", "body": BODY},
        headers={"X-Request-Id": "from-the-client-7"},
    )
    assert response.headers["X-Request-Id"] == "from-the-client-7"
    message = (await tracer.json(response.json()["message_id"]))["message"]
    assert (message["correlation_id"], message["client_msg_id"]) == ("from-the-client-7", "mine")

    client = await sessions.open(alice)
    answer = await client.send(int(conversation), "by socket", "theirs")
    message = (await tracer.json(answer["ok"]["message_id"]))["message"]
    assert message["correlation_id"] == f"{client.hello['session_id']}.{answer['id']}"


async def test_a_text_is_shown_only_where_it_is_asked_for(tracer: Tracer, alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    posted = await alice.say(conversation, SECRET_TEXT)
    by_seq = f"{conversation}:{posted['seq']}"
    assert (await tracer.json(by_seq))["message"]["body"] is None
    assert SECRET_TEXT in (await tracer.run(by_seq, "--body")).stdout
    told = await tracer.json(by_seq, "--body")
    assert told["message"]["message_id"] == posted["message_id"]
    assert SECRET_TEXT in told["message"]["body"]


async def test_what_is_no_message_is_one_plain_line(tracer: Tracer, alice: User, bob: User) -> None:
    conversation = await alice.open_group(bob)
    posted = await alice.say(conversation, SECRET_TEXT)
    older = str(int(posted["message_id"]) - (1 << 52))
    for arguments, words in (
        (("what",), "names no message"),
        (("1:2:3",), "names no message"),
        ((f"{conversation}:0",), "names no message"),
        ((f"{conversation}:9",), "has no message with seq 9"),
        ((conversation,), "is a conversation's id"),
        ((older,), "of another deployment, or was never stored"),
        ((f"{older}:1",), "of another deployment, or was never opened"),
        ((posted["message_id"], "--user", "no body"), "is no user id"),
    ):
        done = await tracer.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert words in done.stderr


async def _until(tracer: Tracer, message_id: str, user: User, beginning: str) -> None:
    """Wait for the read models to make a sentence begin like this."""
    async with asyncio.timeout(30):
        while not (why := await tracer.why(message_id, user)).startswith(beginning):
            assert why
