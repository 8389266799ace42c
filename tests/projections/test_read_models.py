"""Given events, then rows: what the projections make of a log."""

from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from domain import events
from domain.ids import pair_key
from projections.projection import LoggedEvent
from streams.codec import decode
from streams.memory import MemoryLog
from streams.public import message_of, to_public
from tests.projections.history import START, STREAM, History, append, record
from tests.projections.workers import Project, applied, projections, rows

ALL = {
    "conversations": "conversation_id",
    "members": "conversation_id, user_id",
    "departures": "conversation_id, user_id",
    "heads": "conversation_id",
    "messages": "conversation_id, seq",
    "changes": "conversation_id, version",
}


async def everything(pool: AsyncConnectionPool) -> dict[str, list[tuple[object, ...]]]:
    return {table: await rows(pool, f"SELECT * FROM {table} ORDER BY {key}") for table, key in ALL.items()}


async def test_events_become_rows(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    history = History(log)
    conversation = history.create("ann", "bob", name="Tea")
    history.post(conversation, "ann", "first")
    history.post(conversation, "bob", "second", mentions=["ann"], reply_to=conversation.last_message_id)
    history.change(conversation, "ann", add=["cid"], remove=["bob"])
    history.rename(conversation, "ann", "Coffee")
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    assert await rows(pool, "SELECT name, member_count, version, created_by FROM conversations") == [
        ("Coffee", 2, 6, "ann")
    ]
    assert await rows(pool, "SELECT user_id, role, joined_seq FROM members ORDER BY user_id") == [
        ("ann", "owner", 1),
        ("cid", "member", 3),
    ]
    assert await rows(pool, "SELECT last_seq, version, sequence, last_sender_id, preview FROM heads") == [
        (2, 6, last, "bob", "second")
    ]
    assert await rows(pool, "SELECT seq, sender_id, body, mentions FROM messages ORDER BY seq") == [
        (1, "ann", '{"type":"text","text":"first"}', "[]"),
        (2, "bob", '{"type":"text","text":"second"}', '["ann"]'),
    ]


async def test_changes_hold_the_bytes_that_are_pushed(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", 'naïve "quotes"\n\tand 😀')
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    pushed = [to_public(decode(delivery)) async for delivery in log.read(STREAM)]
    stored = await rows(pool, "SELECT data FROM changes ORDER BY version")
    assert [data for (data,) in stored] == [msgspec.json.encode(event.data).decode() for event in pushed if event]


async def test_months_get_partitions_as_their_events_come(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log, step=timedelta(days=20))
    conversation = history.create("ann", "bob")
    for number in range(5):
        history.post(conversation, "ann", str(number))
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    found = await rows(pool, "SELECT tableoid::regclass::text, count(*) FROM changes GROUP BY 1 ORDER BY 1")
    assert [name for name, _ in found] == [f"changes_2026_{month:02}" for month in (2, 3, 4, 5)]
    assert sum(count for _, count in found) == last


async def test_applying_twice_is_harmless(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "hello")
    history.change(conversation, "ann", add=["cid"])
    history.change(conversation, "ann", remove=["bob"], roles={"cid": "admin"})
    history.post(conversation, "cid", "hi")
    history.change(conversation, "ann", add=["bob"])
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    before = await everything(pool)
    batch = [LoggedEvent(delivery.sequence, decode(delivery)) async for delivery in log.read(STREAM)]
    async with pool.connection() as connection:
        for projection in projections():
            for again in (batch, batch[:2], batch[1:]):
                async with connection.transaction():
                    await projection.apply(connection, again)
                assert await everything(pool) == before


async def test_a_member_added_removed_and_added_in_one_batch_is_in(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    for number in range(2):
        history.change(conversation, "ann", add=["cid", "dan"])
        history.change(conversation, "ann", roles={"cid": "admin"})
        history.post(conversation, "ann", f"message {number}")
        if number == 0:
            history.change(conversation, "ann", remove=["cid"])
        history.change(conversation, "ann", remove=["dan"])
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    assert await rows(pool, "SELECT user_id, role, joined_seq FROM members ORDER BY user_id") == [
        ("ann", "owner", 1),
        ("bob", "member", 1),
        ("cid", "admin", 2),
    ]
    assert await rows(pool, "SELECT member_count FROM conversations") == [(3,)]


async def test_a_role_given_in_a_later_batch_keeps_the_rest(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "hello")
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
        before = await rows(pool, "SELECT joined_seq, joined_at FROM members WHERE user_id = 'bob'")
        history.change(conversation, "ann", roles={"bob": "admin"})
        await applied(workers, await history.append())
    after = await rows(pool, "SELECT joined_seq, joined_at, role FROM members WHERE user_id = 'bob'")
    assert after == [(*before[0], "admin")]


async def test_a_head_keeps_its_last_message_when_other_things_happen(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "hello")
    async with project() as workers:
        await applied(workers, await history.append())
        history.rename(conversation, "ann", "new name")
        await applied(workers, await history.append())
    assert await rows(pool, "SELECT version, last_seq, preview FROM heads") == [(3, 1, "hello")]


async def test_a_stored_message_is_the_posted_one(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "x" * 8192)
    posted = history.conversations[0].pending_events[-1]
    async with project() as workers:
        await applied(workers, await history.append())
    stored = await rows(pool, "SELECT message_id::text, created_at, client_msg_id FROM messages")
    message = message_of(posted)  # type: ignore[arg-type]
    assert stored == [(message.message_id, posted.timestamp, message.client_msg_id)]


JOINED = "SELECT user_id, joined_version, joined_sequence, posted_seq FROM members ORDER BY user_id"
DEPARTED = "SELECT user_id, joined_version, left_version, left_sequence FROM departures ORDER BY user_id"


async def test_who_posted_has_read_their_own_message(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.post(conversation, "ann", "one")
    history.post(conversation, "bob", "two")
    async with project() as workers:
        await applied(workers, await history.append())
        assert await rows(pool, JOINED) == [("ann", 1, 1, 1), ("bob", 1, 1, 2)]
        history.post(conversation, "ann", "three")
        await applied(workers, await history.append())
    assert await rows(pool, JOINED) == [("ann", 1, 1, 3), ("bob", 1, 1, 2)]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
async def test_what_was_posted_before_leaving_does_not_count_after_coming_back(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob", "cid")
    async with project() as workers:
        history.post(conversation, "bob", "before")
        history.post(conversation, "cid", "before")
        if not together:
            await applied(workers, await history.append())
        history.change(conversation, "ann", remove=["bob", "cid"])
        if not together:
            await applied(workers, await history.append())
        history.change(conversation, "ann", add=["bob", "cid"])
        history.post(conversation, "cid", "after")
        await applied(workers, await history.append())
    assert await rows(pool, JOINED) == [("ann", 1, 1, 0), ("bob", 6, 6, 0), ("cid", 7, 7, 3)]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
async def test_a_departure_is_the_newest_and_stays_when_the_user_is_back(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, together: bool
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob", "cid", "dan")
    async with project() as workers:
        for changes in (
            {"remove": ["bob"]},  # version 2
            {"add": ["bob"]},
            {"roles": {"bob": "admin"}},
            {"remove": ["bob"]},  # 5
            {"remove": ["cid"]},
            {"add": ["cid"]},
            {"roles": {"dan": "admin"}},
            {"remove": ["dan"]},  # 9
        ):
            history.change(conversation, "ann", **changes)
            if not together:
                await applied(workers, await history.append())
        await applied(workers, await history.append())
    assert await rows(pool, DEPARTED) == [("bob", 3, 5, 5), ("cid", 1, 6, 6), ("dan", 1, 9, 9)]
    assert [user_id for user_id, *_ in await rows(pool, JOINED)] == ["ann", "cid"]


async def test_who_leaves_without_having_been_seen_to_come_is_told_of_the_leaving_alone(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    history.change(conversation, "ann", add=["cid"])
    history.change(conversation, "ann", remove=["cid"])
    records = history.records()
    records[1] = replace(records[1], data=b"\xc1")
    last = await append(log, records)
    async with project() as workers:
        await applied(workers, last)
    assert await rows(pool, DEPARTED) == [("cid", 3, 3, 3)]


async def test_what_is_internal_has_no_rows(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    key = pair_key("ann", "bob").value
    created = events.PairCreated(key, 1, START, "ann", originator_topic="pair")
    blocked = events.PairBlocked(key, 2, START, "ann")
    history = History(log)
    conversation = history.create("cid", "dan")
    last = await append(log, [record(created), *history.records(), record(blocked)])
    async with project() as workers:
        await applied(workers, last)
        assert sum(worker.dead_total for worker in workers) == 0
    for table in ("conversations", "heads", "changes"):
        assert await rows(pool, f"SELECT conversation_id FROM {table}") == [(int(conversation.id),)]
