"""What `sync` and a resuming session are told: exactly what happened since, to whom it happened."""

import msgspec
import pytest
from psycopg_pool import AsyncConnectionPool

from projections.inbox import InboxQueries
from projections.pages import InboxEntry, Synced
from projections.sync import SyncQueries
from streams.cursor import Cursor
from tests.projections.syncs import (
    inbox_fixture,  # noqa: F401
    opened,
    seen_by,
    since,
    sync_fixture,  # noqa: F401
    told,
    versions,
)

PARTITIONS = 2


# -- one pull -----------------------------------------------------------------------------------------------


async def test_only_what_changed_is_given(pool: AsyncConnectionPool, sync: SyncQueries, inbox: InboxQueries) -> None:
    models = await opened(pool)
    tea, jam = await models.create("ann", "bob"), await models.create("ann", "bob")
    await models.create("bob", "cid")
    cursor = await seen_by(models, "ann")
    assert await since(sync, "ann", cursor) == Synced([], [], cursor, True)
    await models.post(jam, "bob", "one")
    await models.rename(jam, "Jam")
    answer = await since(sync, "ann", cursor)
    assert told(answer) == {jam: [2, 3]}
    assert [event.type for event in answer.conversations[0].events] == ["message.posted", "conversation.updated"]
    assert answer.cursor == models.positions.cursor("ann")
    page = (await inbox.page("ann", limit=1)).conversations[0]
    entry = msgspec.structs.asdict(answer.conversations[0])
    assert {name: entry[name] for name in InboxEntry.__struct_fields__} == msgspec.structs.asdict(page)
    assert tea not in told(answer)


async def test_events_are_those_of_the_push(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    await models.post(id_, "bob", "one")
    (entry,) = (await since(sync, "ann", Cursor((0,)))).conversations
    assert [msgspec.json.encode(event) for event in entry.events] == [
        msgspec.json.encode(event) for _, event in models.places[id_].events
    ]


@pytest.mark.parametrize("missed", [3, 4, 16, 17, 18, 40])
@pytest.mark.parametrize("most", [3, 16, 17, 30])
async def test_of_many_events_the_newest_are_given(
    pool: AsyncConnectionPool, sync: SyncQueries, missed: int, most: int
) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = await seen_by(models, "ann")
    for _ in range(missed):
        await models.post(id_, "bob")
    (entry,) = (await since(sync, "ann", cursor, events_max=most)).conversations
    assert versions(entry.events) == list(range(2, missed + 2))[-most:]
    assert entry.events_truncated is (missed > most)


async def test_what_is_only_ones_own_comes_without_events(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    tea, jam = await models.create("ann", "bob"), await models.create("ann", "bob")
    await models.post(tea, "bob")
    cursor = await seen_by(models, "ann")
    await models.read("ann", tea, 1)
    await models.set_own("ann", jam, pinned=True)
    await models.read("bob", jam, 1)
    answer = await since(sync, "ann", cursor)
    assert told(answer) == {tea: [], jam: []}
    assert (answer.conversations[0].unread, answer.conversations[1].pinned) == (0, True)
    assert answer.cursor.own > cursor.own
    assert await since(sync, "ann", answer.cursor) == Synced([], [], answer.cursor, True)


async def test_who_came_in_is_told_from_then_on(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = await seen_by(models, "cid")
    await models.post(id_, "bob")
    await models.add(id_, "cid")
    await models.post(id_, "bob")
    assert told(await since(sync, "cid", cursor)) == {id_: [3, 4]}
    assert told(await since(sync, "ann", cursor)) == {id_: [2, 3, 4]}


async def test_who_left_is_told_up_to_that(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob", "cid")
    cursor = await seen_by(models, "cid")
    await models.post(id_, "bob")
    await models.remove(id_, "cid")
    await models.post(id_, "bob", "not for cid")
    answer = await since(sync, "cid", cursor)
    assert answer.conversations == []
    assert [(entry.conversation_id, entry.version, versions(entry.events)) for entry in answer.left] == [
        (str(id_), 3, [2, 3])
    ]
    assert await since(sync, "cid", answer.cursor) == Synced([], [], answer.cursor, True)
    (cut,) = (await since(sync, "cid", cursor, events_max=1)).left
    assert (versions(cut.events), cut.events_truncated) == ([3], True)


async def test_who_left_and_came_back_is_told_all_that_lies_between(
    pool: AsyncConnectionPool, sync: SyncQueries
) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = await seen_by(models, "bob")
    await models.remove(id_, "bob")
    between = await seen_by(models, "bob")
    await models.post(id_, "ann")
    await models.add(id_, "bob")
    await models.post(id_, "ann")
    assert told(await since(sync, "bob", cursor)) == {id_: [2, 3, 4, 5]}
    # Who knows that they were out is told from their return on.
    assert told(await since(sync, "bob", between)) == {id_: [4, 5]}


async def test_a_second_departure_tells_nothing_from_before_that_membership(
    pool: AsyncConnectionPool, sync: SyncQueries
) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = await seen_by(models, "bob")
    await models.remove(id_, "bob")
    await models.post(id_, "ann", "not for bob")
    await models.add(id_, "bob")
    await models.remove(id_, "bob")
    answer = await since(sync, "bob", cursor)
    assert [versions(entry.events) for entry in answer.left] == [[4, 5]]


async def test_what_was_seen_ahead_of_the_position_is_not_told_again(
    pool: AsyncConnectionPool, sync: SyncQueries
) -> None:
    models = await opened(pool)
    tea, jam, ham = [await models.create("ann", "bob") for _ in range(3)]
    base = await seen_by(models, "ann")
    for id_ in (tea, jam, tea, jam):
        await models.post(id_, "bob")
    await models.remove(ham, "ann")
    cursor = Cursor(base.positions, base.own, {tea: 3, jam: 2, ham: 2})
    answer = await since(sync, "ann", cursor)
    assert told(answer) == {jam: [3]}
    assert answer.left == []
    assert answer.cursor == models.positions.cursor("ann")
    await models.read("ann", tea, 1)
    assert told(await since(sync, "ann", cursor)) == {tea: [], jam: [3]}


async def test_what_the_read_models_do_not_have_yet_stays_ahead(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = Cursor(models.positions.conversations, 0, {id_: 5})
    answer = await since(sync, "ann", cursor)
    assert answer == Synced([], [], cursor, True)
    for _ in range(5):
        await models.post(id_, "bob")
    assert told(await since(sync, "ann", answer.cursor)) == {id_: [6]}


async def test_a_rebuild_neither_repeats_nor_moves_a_cursor_back(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    await models.post(id_, "bob")
    ahead = Cursor((9,), own=9)
    assert await since(sync, "ann", ahead) == Synced([], [], ahead, True)
    assert await sync.missed("ann", ahead, limit=10) is None


async def test_what_one_read_model_has_alone_is_left_for_the_next_time(
    pool: AsyncConnectionPool, sync: SyncQueries
) -> None:
    models = await opened(pool)
    id_ = await models.create("ann", "bob")
    cursor = await seen_by(models, "ann")
    await models.post(id_, "bob")
    await models.post(id_, "bob")
    for behind in ("conversations", "heads", "messages"):
        async with pool.connection() as connection:
            await connection.execute("UPDATE checkpoints SET sequence = 2 WHERE projection = %s", (behind,))
        answer = await since(sync, "ann", cursor)
        assert told(answer) == {id_: [2]}
        assert answer.cursor.positions == (2,)
        missed = await sync.missed("ann", cursor, limit=10)
        assert missed is not None
        assert (versions(missed.events), missed.memberships[0].version) == ([2], 2)
        async with pool.connection() as connection:
            await connection.execute("UPDATE checkpoints SET sequence = 3 WHERE projection = %s", (behind,))
        assert told(await since(sync, "ann", answer.cursor)) == {id_: [3]}


# -- page by page -------------------------------------------------------------------------------------------


async def test_a_sync_that_does_not_fit_goes_on_where_it_stopped(pool: AsyncConnectionPool, sync: SyncQueries) -> None:
    models = await opened(pool)
    made = [await models.create("ann", "bob") for _ in range(7)]
    await models.remove(made[2], "ann")
    end = models.positions.cursor("ann")
    given, cursor, done = [], Cursor((0,)), False
    while not done:
        answer = await since(sync, "ann", cursor, limit=2)
        given += [*told(answer), *(int(left.conversation_id) for left in answer.left)]
        cursor, done = answer.cursor, answer.done
        assert (cursor.page is None) is done
    assert sorted(given) == sorted(made)
    assert cursor == end


async def test_heads_that_move_between_pages_are_neither_missed_nor_waited_for(
    pool: AsyncConnectionPool, sync: SyncQueries
) -> None:
    models = await opened(pool)
    made = [await models.create("ann", "bob") for _ in range(6)]
    start = await seen_by(models, "ann")
    for id_ in made:
        await models.post(id_, "bob")
    seen: dict[int, list[int]] = {}
    cursor, done, pages = start, False, 0
    while not done:
        answer = await since(sync, "ann", cursor, limit=2)
        for id_, of_id in told(answer).items():
            seen.setdefault(id_, []).extend(of_id)
        cursor, done, pages = answer.cursor, answer.done, pages + 1
        for id_ in made:  # all of them, all the time
            await models.post(id_, "bob")
    assert pages == 3
    for id_, of_id in told(await since(sync, "ann", cursor)).items():
        seen.setdefault(id_, []).extend(of_id)
    assert {id_: sorted(set(of_id)) for id_, of_id in seen.items()} == {id_: [2, 3, 4, 5] for id_ in made}
