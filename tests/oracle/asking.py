"""What a client asks for: pages, as often as there are more, and what stands."""

from collections.abc import AsyncIterator
from typing import Any

from tests.api.conftest import User
from tests.oracle.state import Json, by_id

MANY = 1_000  # pages, more than there are


async def read(user: User, path: str, **query: Any) -> Json:
    response = await user.get(path, **query)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def sync(user: User, *, cursor: str | None, limit: int, events: int) -> Json:
    place = {} if cursor is None else {"cursor": cursor}
    return await read(user, "/v1/sync", limit=limit, events=events, **place)


async def all_events(user: User, conversation_id: str, *, after: int = 0) -> AsyncIterator[Json]:
    """Every event of a conversation; none if the user is not in it any more."""
    has_more = True
    while has_more:
        response = await user.get(f"/v1/conversations/{conversation_id}/events", after=after, limit=100)
        if response.status_code == 404:
            return
        assert response.status_code == 200, response.text
        page = response.json()
        for event in page["events"]:
            yield event
            after = event["version"]
        has_more = page["has_more"]


async def read_inbox(user: User) -> dict[str, Json]:
    """What a fresh client pulls: all pages, those that are hidden and those that are not."""
    entries: dict[str, Json] = {}
    for hidden in ("false", "true"):
        found: list[Json] = []
        place: Json = {}
        while True:
            page = await read(user, "/v1/inbox", limit=3, hidden=hidden, **place)
            found += page["conversations"]
            if page["page"] is None:
                break
            place = {"page": page["page"]}
        order = [(entry["updated_at"], int(entry["conversation_id"])) for entry in found]
        assert order == sorted(order, reverse=True), "an inbox has the newest first"
        entries |= by_id(found)
    return entries


async def read_profile(user: User) -> Json:
    profile = await read(user, "/v1/profile")
    del profile["user_id"]
    return profile


async def read_devices(user: User) -> dict[str, Json]:
    """The devices as a client that was told of them has them."""
    devices = (await read(user, "/v1/devices"))["devices"]
    return {
        device["device_id"]: {"revoked_at": device["revoked_at"]}
        if device["revoked"]
        else {"kind": device["kind"], "registered_at": device["registered_at"]}
        for device in devices
    }


async def read_blocks(user: User) -> dict[str, str]:
    return {block["user_id"]: block["blocked_at"] for block in (await read(user, "/v1/blocks"))["blocks"]}
