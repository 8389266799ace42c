"""Verification: equal when it is, and every planted difference named."""

import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from domain import events
from domain.conversations import Conversation
from domain.errors import DomainError
from domain.ids import pair_key
from projections import telling
from projections.differences import Report
from projections.projection import LoggedEvent
from projections.verification import CannotCompare, verify
from streams import subjects
from streams.codec import decode
from streams.memory import MemoryLog
from streams.ports import Record
from streams.topology import Topology
from tests.projections.conftest import TABLES
from tests.projections.history import START, USERS, History, UserHistory, append, record
from tests.projections.workers import Project, applied, family_of, projections

USER_IDS = ["ann", "bob", "cid", "dan"]


async def projected(log: MemoryLog, project: Project) -> list[Conversation]:
    """Two conversations, and what two users did for themselves."""
    history = History(log)
    tea, milk = history.create("ann", "bob", name="Tea"), history.create("cid", "dan")
    for number in range(5):
        history.post(tea, "ann", f"tea {number}", client_msg_id=f"t{number}")
        history.post(milk, "cid", f"milk {number}", client_msg_id=f"m{number}")
    history.change(tea, "ann", add=["eve"], remove=["bob"])
    history.change(milk, "cid", roles={"dan": "admin"})
    last, last_of_users = await history.append(), await users_of(log, tea, milk).append()
    async with project() as workers:
        await applied(workers, last)
        await applied(workers, last_of_users, USERS)
    return [tea, milk]


def users_of(log: MemoryLog, tea: Conversation, milk: Conversation) -> UserHistory:
    users = UserHistory(log)
    users.happened("ann", events.ProfileUpdated, display_name="Ann", avatar_url=None, attributes={"a": "1"})
    users.happened("ann", events.ReadMoved, conversation_id=int(tea.id), seq=2)
    users.happened("ann", events.ReadMoved, conversation_id=int(tea.id), seq=4)
    users.happened("ann", events.ReadMoved, conversation_id=int(milk.id), seq=1)
    for user_id in ("ann", "bob"):
        users.happened(user_id, events.DeviceRegistered, device_id="phone", kind="mobile")
        users.happened(user_id, events.UserBlocked, user_id="mallory")
        settings = {"muted_until": START, "pinned": user_id == "ann", "hidden": False}
        users.happened(user_id, events.SettingsUpdated, conversation_id=int(tea.id), **settings)
    users.happened("ann", events.DeviceRevoked, device_id="phone")
    users.happened("ann", events.UserUnblocked, user_id="mallory")
    return users


async def verified(log: MemoryLog, database: str) -> Report:
    return await verify(log, database, partitions=1, wait_s=0.2)


async def test_what_was_projected_is_equal(log: MemoryLog, project: Project, database: str) -> None:
    await projected(log, project)
    report = await verified(log, database)
    assert report.equal
    assert {model.model: model.rows for model in report.models} == {
        "conversations": 2,
        "members": 4,
        "departures": 1,
        "heads": 2,
        "messages": 10,
        "changes": 15,
        "users": 2,
        "devices": 2,
        "blocks": 2,
        "markers": 2,
        "own_settings": 2,
    }
    assert (report.events, report.conversations, report.users) == (29, 2, 2)
    as_json = json.loads(json.dumps(report.as_dict()))
    assert as_json["equal"] is True
    assert as_json["models"]["members"] == {"conversations": 2, "rows": 4, "different": 0}
    assert as_json["models"]["markers"] == {"users": 1, "rows": 2, "different": 0}


async def test_it_tells_how_far_it_is(
    log: MemoryLog, project: Project, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY", 5)
    await projected(log, project)
    told: list[tuple[str, int, int]] = []
    await verify(log, database, partitions=1, wait_s=0.2, tell=lambda *step: told.append(step))
    events = [(0, 29), (5, 29), (10, 29), (15, 29), (20, 29), (25, 29), (29, 29)]
    messages, changes = [(0, 10), (5, 10), (10, 10)], [(0, 15), (5, 15), (10, 15), (15, 15)]
    assert told == [
        (phase, *step)
        for phase, steps in (("events", events), ("messages", messages), ("changes", changes))
        for step in steps
    ]


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("DELETE FROM messages WHERE conversation_id = {id} AND seq = 3", ["messages"]),
        ("UPDATE messages SET body = replace(body, 'tea 2', 'tea 7') WHERE conversation_id = {id}", ["messages"]),
        ("UPDATE messages SET sender_id = 'bob' WHERE conversation_id = {id} AND seq = 1", ["messages"]),
        ("UPDATE changes SET data = data || ' ' WHERE conversation_id = {id} AND version = 2", ["changes"]),
        ("DELETE FROM changes WHERE conversation_id = {id}", ["changes"]),
        ("DELETE FROM members WHERE conversation_id = {id} AND user_id = 'eve'", ["members"]),
        ("UPDATE members SET role = 'admin' WHERE conversation_id = {id} AND user_id = 'eve'", ["members"]),
        ("INSERT INTO members VALUES ({id}, 'mallory', 'owner', 1, now(), 1, 1, 0)", ["members"]),
        ("UPDATE members SET posted_seq = 4 WHERE conversation_id = {id} AND user_id = 'ann'", ["members"]),
        ("UPDATE members SET joined_version = 2 WHERE conversation_id = {id} AND user_id = 'ann'", ["members"]),
        ("UPDATE members SET joined_sequence = 1 WHERE conversation_id = {id} AND user_id = 'eve'", ["members"]),
        ("DELETE FROM departures WHERE conversation_id = {id}", ["departures"]),
        ("UPDATE departures SET left_version = 7 WHERE conversation_id = {id}", ["departures"]),
        ("UPDATE departures SET joined_version = 7 WHERE conversation_id = {id}", ["departures"]),
        ("UPDATE departures SET left_sequence = 1 WHERE conversation_id = {id}", ["departures"]),
        ("INSERT INTO departures VALUES ('mallory', {id}, 1, 2, 2)", ["departures"]),
        ("UPDATE heads SET last_seq = 6 WHERE conversation_id = {id}", ["heads"]),
        ("UPDATE heads SET preview = 'other' WHERE conversation_id = {id}", ["heads"]),
        ("UPDATE conversations SET name = 'Gin' WHERE conversation_id = {id}", ["conversations"]),
        ("UPDATE conversations SET member_count = 9 WHERE conversation_id = {id}", ["conversations"]),
        ("DELETE FROM conversations WHERE conversation_id = {id}", ["conversations"]),
    ],
)
async def test_a_planted_difference_is_named(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, database: str, damage: str, where: list[str]
) -> None:
    tea, _ = await projected(log, project)
    async with pool.connection() as connection:
        cursor = await connection.execute(damage.format(id=tea.id).encode())
        assert cursor.rowcount >= 1
    report = await verified(log, database)
    assert [(found.where, found.conversation_id) for found in report.differences] == [(w, int(tea.id)) for w in where]


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("DELETE FROM users WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET version = 6 WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET sequence = sequence + 1 WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET display_name = 'Anna' WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET avatar_url = 'https://a/1' WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET attributes = '{}' WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET profile_sequence = 3 WHERE user_id = 'ann'", "users"),
        ("UPDATE users SET profile_at = now() WHERE user_id = 'ann'", "users"),
        ("DELETE FROM devices WHERE user_id = 'ann'", "devices"),
        ("UPDATE devices SET revoked_at = NULL WHERE user_id = 'ann'", "devices"),
        ("UPDATE devices SET registered_at = registered_at - interval '1 ms' WHERE user_id = 'ann'", "devices"),
        ("UPDATE devices SET kind = 'web' WHERE user_id = 'ann'", "devices"),
        ("UPDATE devices SET sequence = 1 WHERE user_id = 'ann'", "devices"),
        ("INSERT INTO devices VALUES ('ann', 'other', 'web', now(), NULL, 3)", "devices"),
        ("INSERT INTO blocks VALUES ('ann', 'other', true, now(), 3)", "blocks"),
        ("UPDATE blocks SET blocked = NOT blocked WHERE user_id = 'ann'", "blocks"),
        ("UPDATE blocks SET blocked_id = 'eve' WHERE user_id = 'ann'", "blocks"),
        ("DELETE FROM markers WHERE user_id = 'ann' AND read_seq = 1", "markers"),
        ("UPDATE markers SET read_seq = 5 WHERE user_id = 'ann' AND read_seq = 4", "markers"),
        ("UPDATE markers SET read_at = now() WHERE user_id = 'ann' AND read_seq = 4", "markers"),
        ("UPDATE markers SET sequence = 3 WHERE user_id = 'ann' AND read_seq = 4", "markers"),
        ("UPDATE own_settings SET muted_until = NULL WHERE user_id = 'ann'", "own_settings"),
        ("UPDATE own_settings SET pinned = false WHERE user_id = 'ann'", "own_settings"),
        ("UPDATE own_settings SET hidden = true WHERE user_id = 'ann'", "own_settings"),
        ("UPDATE own_settings SET occurred_at = now() WHERE user_id = 'ann'", "own_settings"),
        ("UPDATE own_settings SET sequence = 1 WHERE user_id = 'ann'", "own_settings"),
        ("DELETE FROM own_settings WHERE user_id = 'ann'", "own_settings"),
    ],
)
async def test_a_planted_difference_of_a_user_is_named(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, database: str, damage: str, where: str
) -> None:
    await projected(log, project)
    async with pool.connection() as connection:
        cursor = await connection.execute(damage.encode())
        assert cursor.rowcount == 1
    report = await verified(log, database)
    assert (where, "ann") in [(found.where, found.user_id) for found in report.differences]
    assert {found.where for found in report.differences} == {where}
    assert str(report.differences[0]).startswith(f"{where}: user ")


async def test_rows_of_a_conversation_the_log_does_not_know_are_a_difference(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, database: str
) -> None:
    await projected(log, project)
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO heads SELECT 7, 1, 1, now(), 0")
    assert [found.conversation_id for found in (await verified(log, database)).differences] == [7]


async def test_a_projection_that_does_not_keep_up_is_told(log: MemoryLog, project: Project, database: str) -> None:
    await projected(log, project)
    history = History(log, slot=5)
    history.create("ann", "bob")
    await history.append()
    assert [found.where for found in (await verified(log, database)).differences] == ["checkpoints"]


async def test_users_whose_versions_have_a_hole_are_told(log: MemoryLog, project: Project, database: str) -> None:
    users = UserHistory(log)
    for seq in (1, 2):
        users.happened("ann", events.ReadMoved, conversation_id=7, seq=seq)
    created, _, second = users.records()
    last = await append(log, [created, second], USERS)
    async with project() as workers:
        await applied(workers, last, USERS)
    [found] = (await verified(log, database)).differences
    assert str(found) == "log: user ann: version 3 follows 1"


async def test_what_is_internal_is_numbered_without_a_hole_too(log: MemoryLog, project: Project, database: str) -> None:
    key = pair_key("ann", "bob").value
    second = events.PairBlocked(originator_id=key, originator_version=2, timestamp=START, actor_id="ann")
    last = await append(log, [record(second)])
    async with project() as workers:
        await applied(workers, last)
    [found] = (await verified(log, database)).differences
    assert str(found) == f"log: version 2 of {key} follows 0"


@pytest.mark.parametrize("fault", ["a version is missing", "a seq is missing", "a client_msg_id is doubled"])
async def test_a_log_that_contradicts_itself_is_told(
    log: MemoryLog, project: Project, database: str, fault: str
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "one", client_msg_id="a")
    if fault == "a seq is missing":
        conversation.last_seq += 1
    if fault == "a client_msg_id is doubled":
        conversation._receipts.clear()
    history.post(conversation, "ann", "two", client_msg_id="a" if fault.endswith("doubled") else "b")
    records = history.records()
    if fault == "a version is missing":
        history.rename(conversation, "ann", "left out")
        history.records()
        history.post(conversation, "ann", "three", client_msg_id="c")
        records += history.records()
    last = await append(log, records)
    async with project() as workers:
        await applied(workers, last)
    assert [found.where for found in (await verified(log, database)).differences] == ["log"]


async def test_what_the_projections_passed_over_is_a_difference(
    log: MemoryLog, project: Project, database: str
) -> None:
    history = History(log)
    history.create("ann", "bob")
    records = history.records()
    last = await append(log, [*records, Record(records[0].subject, b"\xc1", {**records[0].headers, "Rr-Version": "2"})])
    async with project() as workers:
        await applied(workers, last)
    report = await verified(log, database)
    assert not report.equal
    assert [found.where for found in report.differences] == ["log"]


async def test_where_nothing_ever_ran_nothing_can_be_compared(
    log: MemoryLog, pool: AsyncConnectionPool, database: str
) -> None:
    with pytest.raises(CannotCompare, match="never run"):
        await verified(log, database)
    with pytest.raises(CannotCompare, match="Postgres"):
        await verify(log, "postgresql://nobody@127.0.0.1:1/none", partitions=1, wait_s=0.1)


ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which conversation
        st.sampled_from(USER_IDS),  # who
        st.sampled_from(["post", "add", "remove", "promote", "rename"]),
        st.sampled_from(USER_IDS),  # whom
    ),
    max_size=40,
)
OWN_ACTIONS = st.lists(
    st.tuples(
        st.integers(1, 3),  # which conversation, or device
        st.sampled_from(USER_IDS),
        st.sampled_from(["read", "mute", "name", "register", "revoke", "block", "unblock"]),
        st.integers(1, 4),  # which seq, time, name, kind or user
    ),
    max_size=40,
)


@given(
    actions=ACTIONS,
    own_actions=OWN_ACTIONS,
    splits=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    again=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_history_in_any_batches_projects_to_what_the_log_says(
    pool: AsyncConnectionPool,
    database: str,
    actions: list[tuple[int, str, str, str]],
    own_actions: list[tuple[int, str, str, int]],
    splits: list[int],
    again: bool,
) -> None:
    log = MemoryLog()
    await log.ensure(Topology())
    history = History(log)
    for conversation in [history.create("ann", "bob", name="one"), history.create("cid"), history.create("dan", "bob")]:
        assert conversation.version == 1
    records = history.records()
    for which, who, what, whom in actions:
        act(history, history.conversations[which], who, what, whom)
        records += history.records()  # interleaved, as they were decided
    await append(log, records)
    users = UserHistory(log)
    for which, who, what, value in own_actions:
        act_alone(users, which, who, what, value)
    await users.append()
    async with pool.connection() as connection:
        await connection.execute(f"TRUNCATE {TABLES}".encode())
        for projection in projections():
            stream = subjects.stream(family_of(projection), 0)
            batch = [LoggedEvent(delivery.sequence, decode(delivery)) async for delivery in log.read(stream)]
            checkpoint = (projection.name, len(batch))
            await connection.execute("INSERT INTO checkpoints VALUES (%s, 0, %s)", checkpoint)
            start, turn = 0, 0
            while start < len(batch):
                size = splits[turn % len(splits)]
                for _ in range(2 if again else 1):
                    async with connection.transaction():
                        await projection.apply(connection, batch[start : start + size])
                start, turn = start + size, turn + 1
    report = await verify(log, database, partitions=1, wait_s=0)
    assert report.differences == []
    async with pool.connection() as connection:
        for conversation in history.conversations:
            cursor = await connection.execute(
                "SELECT user_id, role, joined_seq FROM members WHERE conversation_id = %s", (int(conversation.id),)
            )
            found = {user_id: (role, joined_seq) for user_id, role, joined_seq in await cursor.fetchall()}
            assert found == {user: (m.role, m.joined_seq) for user, m in conversation.members.items()}


def act_alone(users: UserHistory, which: int, who: str, what: str, value: int) -> None:
    """What a user does for themselves. Not all of it would be decided so: folding is total."""
    match what:
        case "read":
            users.happened(who, events.ReadMoved, conversation_id=which, seq=value)
        case "mute":
            until = START + timedelta(days=value) if value > 1 else None
            flags = {"pinned": value == 2, "hidden": value == 3}
            users.happened(who, events.SettingsUpdated, conversation_id=which, muted_until=until, **flags)
        case "name":
            name = f"name {value}" if value > 1 else None
            users.happened(who, events.ProfileUpdated, display_name=name, avatar_url=None, attributes={name or "": ""})
        case "register":
            kind = ("mobile", "web")[value % 2]
            users.happened(who, events.DeviceRegistered, device_id=f"d{which}", kind=kind)
        case "revoke":
            users.happened(who, events.DeviceRevoked, device_id=f"d{which}")
        case "block":
            users.happened(who, events.UserBlocked, user_id=USER_IDS[value - 1])
        case "unblock":
            users.happened(who, events.UserUnblocked, user_id=USER_IDS[value - 1])


def act(history: History, conversation: Conversation, who: str, what: str, whom: str) -> None:
    """Ask for something; a refusal is no event."""
    try:
        match what:
            case "post":
                history.post(conversation, who, f"{who} to {whom}", mentions=[whom])
            case "add":
                history.change(conversation, who, add=[whom])
            case "remove":
                history.change(conversation, who, remove=[whom])
            case "promote":
                history.change(conversation, who, roles={whom: "admin"})
            case "rename":
                history.rename(conversation, who, f"for {whom}")
    except DomainError:
        return
