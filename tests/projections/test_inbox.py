"""Inboxes from Postgres: what is in them, in what order, page by page."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from psycopg_pool import AsyncConnectionPool

from domain.errors import Invalid, Unavailable
from projections.inbox import InboxQueries, page_of, place_of
from streams.cursor import Cursor
from streams.public import Message
from tests.projections.models import Models


@pytest.fixture
def inbox(pool: AsyncConnectionPool) -> InboxQueries:
    return InboxQueries(pool)


async def ids(inbox: InboxQueries, user: str, *, hidden: bool = False) -> list[int]:
    return [int(entry.conversation_id) for entry in (await inbox.page(user, limit=100, hidden=hidden)).conversations]


async def test_an_inbox_has_the_newest_first(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    tea, jam, ham = [await models.create("ann", "bob", name=name) for name in ("Tea", "Jam", "Ham")]
    await models.post(jam, "bob")
    assert await ids(inbox, "ann") == [jam, ham, tea]
    assert await ids(inbox, "nobody") == []


async def test_an_entry_tells_all_that_a_list_shows(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob", kind="direct")
    await models.post(id_, "bob", "one")
    await models.post(id_, "bob", "two")
    await models.read("ann", id_, 1)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await models.set_own("ann", id_, muted_until=until, pinned=True)
    answer = await inbox.page("ann", limit=10)
    (entry,) = answer.conversations
    assert (entry.kind, entry.name, entry.peer_id) == ("direct", None, "bob")
    assert (entry.version, entry.last_seq, entry.joined_seq, entry.read_seq, entry.unread) == (3, 2, 1, 1, 1)
    assert (entry.muted, entry.pinned, entry.hidden) == (True, True, False)
    assert entry.muted_until == until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert entry.last_message is not None
    message = msgspec.json.decode(entry.last_message, type=Message)
    assert (message.seq, message.sender_id, message.body["text"]) == (2, "bob", "two")
    assert entry.updated_at == message.created_at
    assert answer.cursor == Cursor((3,), own=2)


async def test_a_conversation_without_messages_has_none_unread(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    await models.create("ann", "bob", name="Tea")
    (entry,) = (await inbox.page("ann", limit=10)).conversations
    assert (entry.name, entry.peer_id, entry.last_message, entry.unread) == ("Tea", None, None, 0)


async def test_posting_reads_ones_own_message(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    for user in ("bob", "ann", "bob"):
        await models.post(id_, user)
    (entry,) = (await inbox.page("ann", limit=10)).conversations
    assert (entry.read_seq, entry.unread) == (2, 1)


async def test_what_was_posted_before_one_came_is_not_unread(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.post(id_, "bob")
    await models.add(id_, "cid")
    await models.post(id_, "bob")
    (entry,) = (await inbox.page("cid", limit=10)).conversations
    assert (entry.joined_seq, entry.read_seq, entry.unread) == (2, 0, 1)


async def test_a_mute_that_is_over_mutes_no_more(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.set_own("ann", id_, muted_until=datetime(2026, 1, 1, tzinfo=UTC))
    (entry,) = (await inbox.page("ann", limit=10)).conversations
    assert (entry.muted, entry.muted_until) == (False, "2026-01-01T00:00:00.000Z")


async def test_hidden_ones_are_given_only_when_asked_for(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    shown, hidden = await models.create("ann", "bob"), await models.create("ann", "bob")
    await models.set_own("ann", hidden, hidden=True)
    assert await ids(inbox, "ann") == [shown]
    assert await ids(inbox, "ann", hidden=True) == [hidden, shown]
    assert await ids(inbox, "bob") == [hidden, shown]


async def test_what_one_is_out_of_is_gone(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.remove(id_, "bob")
    assert await ids(inbox, "bob") == []
    await models.add(id_, "bob")
    assert await ids(inbox, "bob") == [id_]


@pytest.mark.parametrize("step", [timedelta(0), timedelta(milliseconds=1)])
async def test_pages_neither_repeat_nor_leave_out(
    pool: AsyncConnectionPool, inbox: InboxQueries, step: timedelta
) -> None:
    models = await Models(pool, step=step).open()
    made = [await models.create("ann", "bob") for _ in range(11)]
    seen, page = [], None
    while True:
        answer = await inbox.page("ann", limit=3, page=page)
        seen += [int(entry.conversation_id) for entry in answer.conversations]
        page = answer.page
        if page is None:
            break
    assert seen == sorted(made, reverse=True)


async def test_the_last_full_page_says_that_it_is_the_last(pool: AsyncConnectionPool, inbox: InboxQueries) -> None:
    models = await Models(pool).open()
    for _ in range(4):
        await models.create("ann", "bob")
    first = await inbox.page("ann", limit=2)
    assert first.page is not None
    assert (await inbox.page("ann", limit=2, page=first.page)).page is None


def test_a_page_token_comes_back() -> None:
    assert place_of(page_of((1_769_817_000_123, 7))) == (1_769_817_000_123, 7)


@pytest.mark.parametrize("token", ["", "x", "é", "AAAA", page_of((1, 2)) + "A", page_of((1, 2))[:-1] + "B", "*" * 22])
async def test_a_page_that_was_not_given_out_is_refused(inbox: InboxQueries, token: str) -> None:
    with pytest.raises(Invalid) as refused:
        await inbox.page("ann", limit=10, page=token)
    assert refused.value.field == "page"


async def test_without_postgres_there_is_no_inbox() -> None:
    pool = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, open=False)
    await pool.open()
    with pytest.raises(Unavailable):
        await InboxQueries(pool).page("ann", limit=10)
    await pool.close()
