"""What tests of the archive share: a log with every kind of event in it, and an archiver that runs until it is done."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from domain import events
from domain.events import Event
from projections.archive.archiver import Archiver
from projections.archive.clickhouse import ClickHouse
from projections.archive.reading import ClickHouseArchive
from streams import codec, subjects
from streams.ports import Archive, Delivery, Log, Record
from tests.projections.history import STREAM, USERS, History, append

WITHIN_S = 30.0
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)


async def a_log_of_everything(log: Log, *, messages: int = 30) -> None:
    """Conversations over a month's end, and one user of every event."""
    history = History(log)
    first, second = history.create("ann", "bob", name="Köln"), history.create("bob", "cid")
    for number in range(messages):
        history.post(first, "ann", f"message {number}: naïve 🚲", mentions=["bob"])
        history.post(second, "cid", "again", client_msg_id=f"x{number}")
    history.change(first, "ann", add=["cid", "dan"], roles={"bob": "admin"})
    history.change(first, "ann", remove=["dan"])
    history.rename(second, "bob", "Bob & co")
    await history.append()
    await append(log, [_record(event) for event in _of_a_user(int(first.id))], USERS)


def _of_a_user(conversation_id: int) -> list[Event]:
    made: list[tuple[type[Event], dict[str, Any]]] = [
        (events.UserCreated, {"originator_topic": "user"}),
        (events.ProfileUpdated, {"display_name": "Ann", "avatar_url": None, "attributes": {"team": "a"}}),
        (events.DeviceRegistered, {"device_id": "phone", "kind": "mobile"}),
        (events.DeviceRevoked, {"device_id": "phone"}),
        (events.UserBlocked, {"user_id": "dan"}),
        (events.UserUnblocked, {"user_id": "dan"}),
        (events.ReadMoved, {"conversation_id": conversation_id, "seq": 7}),
        (
            events.SettingsUpdated,
            {"conversation_id": conversation_id, "muted_until": MOMENT, "pinned": True, "hidden": False},
        ),
    ]
    common: dict[str, Any] = {"originator_id": "ann", "timestamp": MOMENT, "actor_id": "ann"}
    return [kind(originator_version=n, **common, **fields) for n, (kind, fields) in enumerate(made, 1)]


def _record(event: Event) -> Record:
    subject = subjects.aggregate(subjects.USER, 0, event.originator_id)
    return codec.encode(event, subject, codec.Metadata(correlation_id="r1"))


async def read(source: Log, stream: str) -> list[Delivery]:
    """All that a log has of a stream."""
    return [delivery async for delivery in source.read(stream)]


async def read_archived(archive: Archive, stream: str, **bounds: Any) -> list[Delivery]:
    """All that an archive has of a stream."""
    return [delivery async for delivery in archive.read(stream, up_to_sequence=1 << 62, **bounds)]


async def archive_all(
    log: Log, clickhouse: ClickHouse, streams: Sequence[str] = (STREAM, USERS), *, every_s: float = 0.01
) -> ClickHouseArchive:
    """Run an archiver a stream until everything is archived."""
    archive = ClickHouseArchive(clickhouse)
    tasks = [asyncio.create_task(Archiver(log, clickhouse, stream, every_s=every_s).run()) for stream in streams]
    try:
        async with asyncio.timeout(WITHIN_S):
            for stream in streams:
                while await archive.position(stream) < await log.last_sequence(stream):
                    assert not any(task.done() for task in tasks)
                    await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return archive
