"""Given events of users, then rows."""

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from domain.events import (
    DeviceRegistered,
    DeviceRevoked,
    ProfileUpdated,
    ReadMoved,
    SettingsUpdated,
    UserBlocked,
    UserUnblocked,
)
from projections.projection import LoggedEvent
from streams import subjects
from streams.codec import decode
from streams.memory import MemoryLog
from tests.projections.history import START, USERS, UserHistory, append
from tests.projections.workers import Project, applied, of_users, rows

TEA, MILK = 4096, 8192  # conversations
ALL = ("users", "devices", "blocks", "markers", "own_settings")
MARKERS = "SELECT user_id, conversation_id, read_seq, read_at, sequence FROM markers ORDER BY 1, 2"
DEVICES = "SELECT device_id, kind, registered_at, revoked_at, sequence FROM devices ORDER BY device_id"
BLOCKS = "SELECT user_id, blocked_id, blocked, changed_at FROM blocks ORDER BY 1, 2"


@pytest.fixture
def history(log: MemoryLog) -> UserHistory:
    return UserHistory(log)


@pytest.fixture(params=[True, False], ids=["in one batch", "batch by batch"])
def together(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def minute(number: int) -> datetime:
    """When the history's so-manieth fact happened."""
    return START + timedelta(minutes=number)


async def project_all(history: UserHistory, project: Project, *, together: bool) -> None:
    """Apply what happened: at once, or each record by itself."""
    records = history.records()
    async with project(of_users()) as workers:
        for batch in [records] if together else [[record] for record in records]:
            await applied(workers, await append(history.log, batch, USERS), USERS)
        assert sum(worker.dead_total for worker in workers) == 0


async def test_a_profile_is_the_newest_and_every_event_moves_the_user_on(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history.happened("ann", ProfileUpdated, display_name="Ann", avatar_url="https://a/1", attributes={"pronoun": "she"})
    history.happened("ann", ProfileUpdated, display_name="Añn", avatar_url=None, attributes={"b": "1", "a": "2"})
    history.happened("a.b", ReadMoved, conversation_id=TEA, seq=1)
    history.happened("ann", ReadMoved, conversation_id=TEA, seq=2)
    await project_all(history, project, together=together)
    assert await rows(pool, "SELECT * FROM users ORDER BY user_id") == [
        ("a.b", 2, 5, None, None, "{}", None, 0),
        ("ann", 4, 6, "Añn", None, '{"b":"1","a":"2"}', minute(2), 3),
    ]


async def test_a_profile_can_be_emptied(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history.happened("ann", ProfileUpdated, display_name="Ann", avatar_url="https://a/1", attributes={"a": "1"})
    history.happened("ann", ProfileUpdated, display_name=None, avatar_url=None, attributes={})
    await project_all(history, project, together=together)
    assert await rows(pool, "SELECT display_name, avatar_url, attributes FROM users") == [(None, None, "{}")]


async def test_devices_are_registered_revoked_and_registered_anew(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history.happened("ann", DeviceRegistered, device_id="phone", kind="mobile")  # sequence 2
    history.happened("ann", DeviceRegistered, device_id="desk", kind="desktop")
    history.happened("ann", DeviceRegistered, device_id="tab", kind="tablet")
    history.happened("ann", DeviceRevoked, device_id="phone")
    history.happened("ann", DeviceRevoked, device_id="desk")
    history.happened("ann", DeviceRegistered, device_id="desk", kind="web")  # 7
    await project_all(history, project, together=together)
    assert await rows(pool, DEVICES) == [
        ("desk", "web", minute(6), minute(5), 7),
        ("phone", "mobile", minute(1), minute(4), 5),
        ("tab", "tablet", minute(3), None, 4),
    ]


async def test_blocks_are_made_and_taken_back(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history.happened("ann", UserBlocked, user_id="bob")
    history.happened("ann", UserBlocked, user_id="cid")
    history.happened("ann", UserUnblocked, user_id="bob")
    history.happened("bob", UserBlocked, user_id="ann")
    history.happened("bob", UserUnblocked, user_id="ann")
    history.happened("bob", UserBlocked, user_id="ann")
    await project_all(history, project, together=together)
    assert await rows(pool, BLOCKS) == [
        ("ann", "bob", False, minute(3)),
        ("ann", "cid", True, minute(2)),
        ("bob", "ann", True, minute(6)),
    ]


async def test_a_marker_only_moves_forward(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    for seq in (3, 9, 4):  # the aggregate had forgotten the marker when it took the 4
        history.happened("ann", ReadMoved, conversation_id=TEA, seq=seq)
    history.happened("ann", ReadMoved, conversation_id=MILK, seq=1)
    history.happened("bob", ReadMoved, conversation_id=TEA, seq=2)
    await project_all(history, project, together=together)
    assert await rows(pool, MARKERS) == [
        ("ann", TEA, 9, minute(2), 3),
        ("ann", MILK, 1, minute(4), 5),
        ("bob", TEA, 2, minute(5), 7),
    ]


async def test_own_settings_are_the_newest(
    history: UserHistory, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    until = START + timedelta(days=3)
    history.happened("ann", SettingsUpdated, conversation_id=TEA, muted_until=until, pinned=False, hidden=True)
    history.happened("ann", SettingsUpdated, conversation_id=MILK, muted_until=until, pinned=True, hidden=False)
    history.happened("ann", SettingsUpdated, conversation_id=TEA, muted_until=None, pinned=True, hidden=False)
    await project_all(history, project, together=together)
    found = "SELECT conversation_id, muted_until, pinned, hidden, occurred_at, sequence FROM own_settings ORDER BY 1"
    assert await rows(pool, found) == [
        (TEA, None, True, False, minute(3), 4),
        (MILK, until, True, False, minute(2), 3),
    ]


async def test_applying_twice_is_harmless(
    log: MemoryLog, history: UserHistory, pool: AsyncConnectionPool, project: Project
) -> None:
    history.happened("ann", ProfileUpdated, display_name="Ann", avatar_url=None, attributes={})
    history.happened("ann", DeviceRegistered, device_id="phone", kind="mobile")
    history.happened("ann", UserBlocked, user_id="bob")
    history.happened("ann", ReadMoved, conversation_id=TEA, seq=3)
    history.happened("ann", SettingsUpdated, conversation_id=TEA, muted_until=None, pinned=True, hidden=False)
    history.happened("ann", DeviceRevoked, device_id="phone")
    history.happened("ann", UserUnblocked, user_id="bob")
    history.happened("ann", ReadMoved, conversation_id=TEA, seq=5)
    history.happened("ann", SettingsUpdated, conversation_id=TEA, muted_until=None, pinned=False, hidden=False)
    history.happened("ann", ProfileUpdated, display_name="Anna", avatar_url=None, attributes={})
    await project_all(history, project, together=True)
    before = [await rows(pool, f"SELECT * FROM {table}") for table in ALL]
    batch = [LoggedEvent(delivery.sequence, decode(delivery)) async for delivery in log.read(USERS)]
    async with pool.connection() as connection:
        for projection in of_users():
            for again in (batch, batch[:6], batch[3:]):
                async with connection.transaction():
                    await projection.apply(connection, again)
                assert [await rows(pool, f"SELECT * FROM {table}") for table in ALL] == before


async def test_a_profile_that_postgres_will_not_take_is_kept_dead_and_markers_go_on(
    log: MemoryLog, history: UserHistory, pool: AsyncConnectionPool, project: Project
) -> None:
    history.happened("ann", ProfileUpdated, display_name="a\x00b", avatar_url=None, attributes={})
    history.happened("ann", ReadMoved, conversation_id=TEA, seq=3)
    records = history.records()
    records.append(replace(records[2], data=b"\xc1 not MessagePack"))
    last = await append(log, records, USERS)
    async with project(of_users()) as workers:
        await applied(workers, last, USERS)
    assert await rows(pool, "SELECT version, display_name FROM users") == [(3, None)]
    assert await rows(pool, MARKERS) == [("ann", TEA, 3, minute(2), 3)]
    dead = [delivery.subject async for delivery in log.read("DEAD")]
    assert sorted(dead) == sorted([*[subjects.dead("users", 0)] * 2, subjects.dead("markers", 0)])
