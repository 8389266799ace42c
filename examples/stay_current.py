"""Stay current: one pull for the inbox, then pushes, and after a lost connection exactly what was missed.

python examples/stay_current.py --token "$(riverrun token --user bob)" [--url http://127.0.0.1:8080]
"""

import argparse
import asyncio
from typing import Any

from runtime.client import ConnectionLost, HttpClient, SessionClosed, WebSocketClient

RECONNECT_S = 1.0


async def main(url: str, token: str) -> None:
    inbox: dict[str, dict[str, Any]] = {}
    versions: dict[str, int] = {}
    cursor = await pull(url, token, inbox)
    while True:
        try:
            async with WebSocketClient(url, token, device_id="example", cursor=cursor, versions=versions) as session:
                if not session.recovered:  # away for too long: the inbox has it all
                    await pull(url, token, inbox)
                try:
                    async for push in session.pushes():
                        if "event" in push:
                            take(inbox, push["event"], session.user_id)
                finally:
                    cursor, versions = session.cursor or cursor, session.versions
        except (ConnectionLost, SessionClosed) as lost:
            print(f"# {lost}; connecting again", flush=True)
        await asyncio.sleep(RECONNECT_S)


async def pull(url: str, token: str, inbox: dict[str, dict[str, Any]]) -> str:
    """The first page of the inbox, and the cursor from which pushes go on."""
    async with HttpClient(url, token) as http:
        page = await http.request("GET", "/v1/inbox")
    inbox.clear()
    for entry in page["conversations"]:
        inbox[entry["conversation_id"]] = entry
        print(f"{entry['unread']:5} unread  {title(entry)}", flush=True)
    return str(page["cursor"])


def take(inbox: dict[str, dict[str, Any]], event: dict[str, Any], user_id: str) -> None:
    """Fold what concerns unread counts; of a new conversation the rest comes with the next pull."""
    entry = inbox.setdefault(event.get("conversation_id", ""), {"name": None, "last_seq": 0, "read_seq": 0})
    data = event["data"]
    match event["type"]:
        case "conversation.created" | "conversation.updated":
            entry["name"] = data["name"]
        case "message.posted":
            entry["last_seq"] = data["seq"]
            if data["sender_id"] == user_id:
                entry["read_seq"] = data["seq"]
            print(f"      {data['sender_id']} in {title(entry)}: {data['body']['text']}", flush=True)
        case "read.moved":
            entry["read_seq"] = max(entry["read_seq"], data["seq"])
        case _:
            return
    print(f"{entry['last_seq'] - entry['read_seq']:5} unread  {title(entry)}", flush=True)


def title(entry: dict[str, Any]) -> str:
    return str(entry["name"] or entry.get("peer_id") or "a conversation")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Stay current with a user's conversations.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--token", required=True)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, arguments.token))
