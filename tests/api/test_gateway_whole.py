"""Push through the whole of it, on real servers: two users, two doors, one log."""

import asyncio
from typing import Any

from runtime.client import WebSocketClient
from tests.api.conftest import NewUser
from tests.running import Running

WAIT_S = 20.0


async def test_members_are_pushed_what_others_send(running: Running, new_user: NewUser) -> None:
    alice, bob = new_user("alice"), new_user("bob")
    heard: list[dict[str, Any]] = []
    enough = asyncio.Event()

    def on_push(push: dict[str, Any]) -> None:
        heard.append(push["event"])
        if len(heard) == 22:
            enough.set()

    async with (
        WebSocketClient(running.url, alice.token) as sender,
        WebSocketClient(running.url, bob.token, on_push=on_push),
        asyncio.timeout(WAIT_S),
    ):
        conversation = await alice.open_group(bob)
        for i in range(20):
            await sender.send(conversation, f"message {i}")
        removal = await alice.post(f"/v1/conversations/{conversation}/members", {"remove": [bob.user_id]})
        assert removal.status_code == 200, removal.text
        await sender.send(conversation, "not for bob")
        await enough.wait()
        again = await alice.open_group(bob)
        while heard[-1]["conversation_id"] != again:
            await asyncio.sleep(0.005)
    assert [event["version"] for event in heard if event["conversation_id"] == conversation] == list(range(1, 23))
    assert [event["data"]["body"]["text"] for event in heard[1:21]] == [f"message {i}" for i in range(20)]
    assert heard[21]["type"] == "member.removed"
