"""Queries: what members read, what strangers do not, and reads that wait for a write."""

import asyncio

import msgspec
import pytest
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from domain.errors import NotFound, Unavailable
from domain.messages import content_digest
from projections.messages import MessagesProjection
from projections.pages import Positions
from projections.progress import Progress
from projections.queries import Queries
from projections.reading import POOL_S
from streams.codec import decode
from streams.memory import MemoryLog
from streams.public import to_public, view_of
from tests.projections.history import STREAM, History
from tests.projections.workers import Project, applied


@pytest.fixture
def queries(pool: AsyncConnectionPool, progress: Progress) -> Queries:
    return Queries(pool, wait_s=5.0, progress=progress)


async def a_chat(log: MemoryLog, project: Project, messages: int = 10) -> tuple[History, Conversation]:
    """Ann, bob and cid, with messages across the turn of a month, applied."""
    history = History(log)
    conversation = history.create("ann", "bob", "cid", name="Tea")
    for number in range(messages):
        history.post(conversation, ("ann", "bob")[number % 2], f"message {number + 1}", client_msg_id=f"m{number + 1}")
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    return history, conversation


async def test_a_conversation_reads_as_the_writer_sees_it(log: MemoryLog, project: Project, queries: Queries) -> None:
    _, conversation = await a_chat(log, project)
    assert await queries.conversation(int(conversation.id), "bob") == view_of(conversation)


async def test_members_are_read_page_by_page(log: MemoryLog, project: Project, queries: Queries) -> None:
    _, conversation = await a_chat(log, project)
    first = await queries.members_page(int(conversation.id), "ann", after=None, limit=2)
    second = await queries.members_page(int(conversation.id), "ann", after="bob", limit=2)
    assert [(member.user_id, member.role) for member in first.members] == [("ann", "owner"), ("bob", "member")]
    assert first.has_more
    assert [member.user_id for member in second.members] == ["cid"]
    assert not second.has_more


@pytest.mark.parametrize(
    ("before", "after", "seqs", "has_more"),
    [
        (None, None, [8, 9, 10], True),
        (8, None, [5, 6, 7], True),
        (3, None, [1, 2], False),
        (4, None, [1, 2, 3], False),
        (None, 0, [1, 2, 3], True),
        (None, 7, [8, 9, 10], False),
        (None, 10, [], False),
        (6, 2, [3, 4, 5], False),
    ],
)
async def test_history_is_read_in_both_directions(
    log: MemoryLog,
    project: Project,
    queries: Queries,
    before: int | None,
    after: int | None,
    seqs: list[int],
    has_more: bool,
) -> None:
    _, conversation = await a_chat(log, project)
    page = (await queries.messages_page(int(conversation.id), "cid", before=before, after=after, limit=3)).page
    assert [message.seq for message in page.messages] == seqs
    assert [message.body["text"] for message in page.messages] == [f"message {seq}" for seq in seqs]
    assert page.has_more is has_more


async def test_events_encode_to_the_bytes_of_the_push(log: MemoryLog, project: Project, queries: Queries) -> None:
    _, conversation = await a_chat(log, project)
    pushed = [msgspec.json.encode(to_public(decode(delivery))) async for delivery in log.read(STREAM)]
    first = (await queries.events_page(int(conversation.id), "ann", after=0, limit=4)).page
    rest = (await queries.events_page(int(conversation.id), "ann", after=4, limit=100)).page
    assert [msgspec.json.encode(event) for event in [*first.events, *rest.events]] == pushed
    assert (first.has_more, rest.has_more) == (True, False)


async def test_strangers_and_unknown_ids_get_the_same_answer(
    log: MemoryLog, project: Project, queries: Queries
) -> None:
    history, conversation = await a_chat(log, project)
    told = set()
    for id_ in (int(conversation.id), history.new_id()):
        for read in (
            queries.conversation(id_, "eve"),
            queries.members_page(id_, "eve", after=None, limit=10),
            queries.messages_page(id_, "eve", before=None, after=None, limit=10),
            queries.events_page(id_, "eve", after=0, limit=10),
        ):
            with pytest.raises(NotFound) as refused:
                await read
            told.add(refused.value.detail)
        assert not await queries.is_member(id_, "eve")
    assert len(told) == 1


async def test_strangers_wait_as_long_for_a_version_as_for_nothing(
    log: MemoryLog, project: Project, pool: AsyncConnectionPool
) -> None:
    history, conversation = await a_chat(log, project)
    queries = Queries(pool, wait_s=0.1)
    clock = asyncio.get_running_loop().time
    for id_ in (int(conversation.id), history.new_id()):
        began = clock()
        with pytest.raises(NotFound):
            await queries.conversation(id_, "eve", min_version=1)
        assert clock() - began >= 0.1


async def test_who_was_removed_reads_no_more(log: MemoryLog, project: Project, queries: Queries) -> None:
    history, conversation = await a_chat(log, project)
    history.change(conversation, "ann", remove=["bob"])
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    with pytest.raises(NotFound):
        await queries.messages_page(int(conversation.id), "bob", before=None, after=None, limit=1)


async def test_a_read_waits_for_the_version_it_asks_for(log: MemoryLog, project: Project, queries: Queries) -> None:
    history, conversation = await a_chat(log, project, messages=1)
    id_ = int(conversation.id)
    history.change(conversation, "ann", add=["dan"])
    reading = asyncio.create_task(queries.members_page(id_, "dan", after=None, limit=10, min_version=3))
    async with project():
        await history.append()
        page = await reading
        history.post(conversation, "dan", "hello")
        await history.append()
        newest = (await queries.messages_page(id_, "dan", before=None, after=None, limit=1, min_version=4)).page
    assert "dan" in [member.user_id for member in page.members]
    assert newest.messages[0].body["text"] == "hello"


async def test_a_version_that_does_not_come_is_unavailable(
    log: MemoryLog, project: Project, pool: AsyncConnectionPool
) -> None:
    _, conversation = await a_chat(log, project, messages=1)
    queries = Queries(pool, wait_s=0.05)
    with pytest.raises(Unavailable):
        await queries.conversation(int(conversation.id), "ann", min_version=3)


async def test_a_version_counts_only_when_every_read_model_has_it(
    log: MemoryLog, project: Project, pool: AsyncConnectionPool
) -> None:
    history, conversation = await a_chat(log, project, messages=1)
    history.post(conversation, "ann", "only in messages")
    last = await history.append()
    async with project([MessagesProjection()]) as workers:
        await applied(workers, last)
    with pytest.raises(Unavailable):
        await Queries(pool, wait_s=0.05).conversation(int(conversation.id), "ann", min_version=3)
    assert (await Queries(pool).positions()).conversations == (last - 1,)


async def test_a_receipt_is_that_of_the_first_send(log: MemoryLog, project: Project, queries: Queries) -> None:
    _, conversation = await a_chat(log, project)
    id_ = int(conversation.id)
    receipt = await queries.receipt(id_, "ann", "m3", min_version=conversation.version)
    assert receipt is not None
    assert (receipt.seq, receipt.version) == (3, 4)
    assert receipt.digest == content_digest({"type": "text", "text": "message 3"}, None, [])
    assert await queries.receipt(id_, "bob", "m3", min_version=conversation.version) is None


async def test_a_receipt_is_not_denied_before_the_read_model_could_know(
    log: MemoryLog, project: Project, pool: AsyncConnectionPool
) -> None:
    _, conversation = await a_chat(log, project)
    with pytest.raises(Unavailable):
        await Queries(pool, wait_s=0.05).receipt(
            int(conversation.id), "ann", "m99", min_version=conversation.version + 1
        )


async def test_positions_are_nought_before_anything_ran(pool: AsyncConnectionPool) -> None:
    assert await Queries(pool, partitions=2).positions() == Positions((0, 0), (0, 0))


async def test_without_postgres_reads_are_unavailable_within_the_pools_patience() -> None:
    pool = AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, open=False)
    await pool.open()
    async with asyncio.timeout(POOL_S + 2):
        with pytest.raises(Unavailable):
            await Queries(pool).positions()
    await pool.close()
