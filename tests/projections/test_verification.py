"""Verification: equal when it is, and every planted difference named."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from domain.errors import DomainError
from projections.differences import Report
from projections.projection import LoggedEvent
from projections.verification import CannotCompare, verify
from streams.codec import decode
from streams.memory import MemoryLog
from streams.ports import Record
from streams.topology import Topology
from tests.projections.history import STREAM, History, append
from tests.projections.workers import Project, applied, projections

USERS = ["ann", "bob", "cid", "dan"]


async def projected(log: MemoryLog, project: Project) -> list[Conversation]:
    history = History(log)
    tea, milk = history.create("ann", "bob", name="Tea"), history.create("cid", "dan")
    for number in range(5):
        history.post(tea, "ann", f"tea {number}", client_msg_id=f"t{number}")
        history.post(milk, "cid", f"milk {number}", client_msg_id=f"m{number}")
    history.change(tea, "ann", add=["eve"], remove=["bob"])
    history.change(milk, "cid", roles={"dan": "admin"})
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    return [tea, milk]


async def verified(log: MemoryLog, database: str) -> Report:
    return await verify(log, database, partitions=1, wait_s=0.2)


async def test_what_was_projected_is_equal(log: MemoryLog, project: Project, database: str) -> None:
    await projected(log, project)
    report = await verified(log, database)
    assert report.equal
    assert {model.model: model.rows for model in report.models} == {
        "conversations": 2,
        "members": 4,
        "heads": 2,
        "messages": 10,
        "changes": 15,
    }
    assert json.loads(json.dumps(report.as_dict()))["equal"] is True


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
        ("INSERT INTO members VALUES ({id}, 'mallory', 'owner', 1, now())", ["members"]),
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
        st.sampled_from(USERS),  # who
        st.sampled_from(["post", "add", "remove", "promote", "rename"]),
        st.sampled_from(USERS),  # whom
    ),
    max_size=40,
)


@given(actions=ACTIONS, splits=st.lists(st.integers(1, 12), min_size=1, max_size=6), again=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_history_in_any_batches_projects_to_what_the_log_says(
    pool: AsyncConnectionPool,
    database: str,
    actions: list[tuple[int, str, str, str]],
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
    last = await append(log, records)
    batch = [LoggedEvent(delivery.sequence, decode(delivery)) async for delivery in log.read(STREAM)]
    async with pool.connection() as connection:
        await connection.execute("TRUNCATE checkpoints, conversations, members, heads, messages, changes")
        for projection in projections():
            await connection.execute("INSERT INTO checkpoints VALUES (%s, 0, %s)", (projection.name, last))
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
