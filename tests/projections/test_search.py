"""Search through both tiers, against what a list comprehension finds."""

import pytest
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound, Unavailable
from domain.events import MessagePosted
from projections.queries import Queries
from projections.tiers.cold import Cold
from streams.codec import decode
from streams.memory import MemoryLog
from tests.projections.archived import ColdStore
from tests.projections.history import STREAM
from tests.projections.test_tiers import a_year, move_all
from tests.projections.workers import Project


async def found(queries: Queries, text: str, *, user: str = "ann", id_: int | None = None, limit: int = 3) -> list[str]:
    """The texts of all pages."""
    texts, before = [], None
    while True:
        page = (await queries.search(user, text, conversation_id=id_, before=before, limit=limit)).page
        texts += [message.body["text"] for message in page.messages]
        if page.before is None:
            return texts
        before = int(page.before)


@pytest.mark.usefixtures("months")
async def test_what_is_found_is_the_same_when_months_have_moved(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))
    posted = [event async for delivery in log.read(STREAM) if isinstance(event := decode(delivery), MessagePosted)]
    texts = [event.body["text"] for event in reversed(posted)]
    asked = {
        text: [one for one in texts if text.lower() in one.lower()] for text in ("1", "É", '"3', "\\ é", "x", "%", "_")
    }
    assert len(asked["É"]) == 40
    for text, expected in asked.items():
        assert await found(queries, text) == expected
    await move_all(pool, store)
    for text, expected in asked.items():
        assert await found(queries, text) == expected
        assert await found(queries, text, id_=int(conversation.id), user="bob", limit=7) == expected
    _, tiers = await queries.search("ann", "1", conversation_id=None, before=None, limit=5)
    assert tiers == ("warm", "cold")


@pytest.mark.usefixtures("months")
async def test_others_conversations_are_not_searched(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore
) -> None:
    conversation = await a_year(log, project, store)
    queries = Queries(pool, cold=Cold(store, partitions=1))
    for moving in (True, False):
        assert await found(queries, "1", user="eve") == []
        with pytest.raises(NotFound):
            await found(queries, "1", user="eve", id_=int(conversation.id))
        if moving:
            await move_all(pool, store)
    store.down = True
    try:
        with pytest.raises(Unavailable):
            await found(queries, "1")
    finally:
        store.down = False
