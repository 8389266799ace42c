"""Two users chat over WebSocket, and both print what they are pushed.

python examples/hello.py [--url http://127.0.0.1:8080] [--data-dir .riverrun]
"""

import argparse
import asyncio
from pathlib import Path

from runtime.client import HttpClient, WebSocketClient
from runtime.tokens import mint

LINES = [("alice", "Hello, Bob."), ("bob", "Hello, Alice! Is this thing durable?"), ("alice", "Every line of it.")]


async def main(url: str, data_dir: Path) -> None:
    # A real application mints tokens in its own backend; here we borrow the secret of the local server.
    secret = (data_dir / "jwt.secret").read_text().strip()
    tokens = {user: mint(user, ttl_s=3600, admin=False, secret=secret) for user in ("alice", "bob")}

    async with HttpClient(url, tokens["alice"]) as http:
        conversation = await http.create_conversation("direct", ["bob"])
    conversation_id = conversation["conversation_id"]

    async with WebSocketClient(url, tokens["alice"]) as alice, WebSocketClient(url, tokens["bob"]) as bob:
        sessions = {"alice": alice, "bob": bob}
        listening = [asyncio.create_task(listen(session, conversation_id)) for session in sessions.values()]
        for user, text in LINES:
            ack = await sessions[user].send(conversation_id, text)
            print(f"{user}'s message is durable as seq {ack['seq']}")
        await asyncio.gather(*listening)


async def listen(session: WebSocketClient, conversation_id: str) -> None:
    """Print as many messages as there are lines."""
    heard = 0
    async for push in session.pushes():
        event = push.get("event", {})
        if event.get("type") == "message.posted" and event["conversation_id"] == conversation_id:
            message = event["data"]
            print(f"  [{session.user_id} sees] #{message['seq']} {message['sender_id']}: {message['body']['text']}")
            heard += 1
            if heard == len(LINES):
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Two users chat over WebSocket.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--data-dir", type=Path, default=Path(".riverrun"))
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, arguments.data_dir))
