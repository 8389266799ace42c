"""The past, held against what the read models answered at the time: the same words, whenever it is asked."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from domain.errors import Invalid, NotFound, Unavailable
from domain.events import ReadMoved, SettingsUpdated
from projections.inbox import InboxQueries
from projections.past.folding import EVENTS_MAX
from projections.past.moment import Moment
from projections.past.past import Past
from projections.queries import Queries
from projections.reading import Database
from streams.archived import ArchivedLog
from streams.memory import MemoryLog
from streams.ports import Delivery, LogUnavailable, Record
from tests.projections.history import STREAM, USERS, History, UserHistory, append
from tests.projections.workers import Project, applied

USER_IDS = ("ann", "bob", "cid")
FOR_EVER = datetime(2999, 1, 1, tzinfo=UTC)


class MemoryArchive:
    """See `streams.ports.Archive`: whatever the log had when it was made."""

    def __init__(self, deliveries: dict[str, list[Delivery]]) -> None:
        self._deliveries = deliveries

    async def position(self, stream: str) -> int:
        return len(self._deliveries[stream])

    async def last(self, stream: str, subject: str, *, up_to_sequence: int) -> Delivery | None:
        of_subject = (one for one in reversed(self._deliveries[stream][:up_to_sequence]) if one.subject == subject)
        return next(of_subject, None)

    async def read(
        self, stream: str, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int
    ) -> AsyncIterator[Delivery]:
        for delivery in self._deliveries[stream][after_sequence:up_to_sequence]:
            if subject in (None, delivery.subject):
                yield delivery


def past_of(log: Any, pool: AsyncConnectionPool, *, events_max: int = EVENTS_MAX) -> Past:
    return Past(log, Database(pool), partitions=1, events_max=events_max)


async def answers(pool: AsyncConnectionPool, history: History) -> dict[str, Any]:
    """What everybody is told now: inboxes, and of each conversation its view and its members."""
    inboxes, queries, found = InboxQueries(pool), Queries(pool), dict[str, Any]()
    for user_id in USER_IDS:
        page = await inboxes.page(user_id, limit=50, hidden=True)
        found[user_id] = page.conversations
        for entry in page.conversations:
            id_ = int(entry.conversation_id)
            members = await queries.members_page(id_, user_id, after=None, limit=50, min_version=0)
            found[entry.conversation_id] = (await queries.conversation(id_, user_id, min_version=0), members.members)
    return found


async def a_story(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, seed: int
) -> tuple[History, list[tuple[datetime, dict[str, Any]]]]:
    """Something happens in every minute; and what the read models answered after each."""
    rng, history, users = random.Random(seed), History(log), UserHistory(log)
    told: list[tuple[datetime, dict[str, Any]]] = []
    async with project() as workers:
        for step in range(30):
            if step in (0, 4):
                history.create("ann", "bob", name=f"number {step}")
            elif step == 2:
                history.create("ann", "cid", kind="direct")
            conversation = rng.choice(history.conversations)
            posters = sorted(conversation.members)
            match rng.randrange(6):
                case 0 | 1 | 2:
                    history.post(conversation, rng.choice(posters), f"message {step}")
                case 3 if conversation.kind == "group":
                    history.change(conversation, "ann", add=["cid"])
                case 4 if conversation.kind == "group":
                    history.change(conversation, "ann", remove=["cid"])
                case _:
                    about = {"conversation_id": int(conversation.id)}
                    users.now = history.now
                    if rng.random() < 0.5:
                        users.happened(rng.choice(posters), ReadMoved, **about, seq=step)
                    else:
                        choice = {"pinned": rng.random() < 0.5, "hidden": rng.random() < 0.5}
                        users.happened("ann", SettingsUpdated, **about, muted_until=FOR_EVER, **choice)
            await applied(workers, await history.append())
            await applied(workers, await users.append(), USERS)
            told.append((max(history.now, users.now), await answers(pool, history)))
            history.now = max(history.now, users.now)
    return history, told


async def check(past: Past, told: list[tuple[datetime, dict[str, Any]]]) -> int:
    """Ask for each moment what was told at it; how many answers there were."""
    asked = 0
    for at, found in told:
        for name, expected in found.items():
            asked += 1
            if name in USER_IDS:
                inbox = await past.inbox(name, at, limit=50, hidden=True)
                assert inbox.conversations == expected, at
                for entry in expected:
                    membership = await past.membership(int(entry.conversation_id), name, Moment(at=at))
                    assert membership.is_member
                    assert (membership.read_seq, membership.unread) == (entry.read_seq, entry.unread)
            else:
                seen = await past.conversation(int(name), Moment(at=at), limit=50)
                assert (seen.conversation, seen.members) == expected, at
                by_version = Moment(version=seen.as_of.version)
                assert await past.conversation(int(name), by_version, limit=50) == seen
    return asked


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_past_is_what_was_told_at_the_time(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, seed: int
) -> None:
    _, told = await a_story(log, pool, project, seed)
    assert await check(past_of(log, pool), told) > 100


async def test_it_is_the_same_when_the_log_has_forgotten_its_beginning(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    _, told = await a_story(log, pool, project, 3)
    archive = MemoryArchive({stream: [one async for one in log.read(stream)] for stream in (STREAM, USERS)})
    await log.trim(STREAM, 12)
    await log.trim(USERS, 2)
    await check(past_of(ArchivedLog(log, archive), pool), told)
    with pytest.raises(LogUnavailable):
        await check(past_of(ArchivedLog(log, None), pool), told)


async def test_pages_of_an_inbox_are_the_whole_of_it(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    for number in range(5):
        history.post(history.create("ann", name=f"number {number}"), "ann", "hello")
        await history.append()
    async with project() as workers:
        await applied(workers, await log.last_sequence(STREAM))
    past, pages, page = past_of(log, pool), [], None
    while True:
        found = await past.inbox("ann", history.now, limit=2, page=page)
        pages.append([entry.name for entry in found.conversations])
        if (page := found.page) is None:
            break
    assert pages == [["number 4", "number 3"], ["number 2", "number 1"], ["number 0"]]
    with pytest.raises(Invalid):
        await past.inbox("ann", history.now, limit=2, page="nonsense")


async def test_who_left_is_told_when(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    group = history.create("ann", "bob")
    history.change(group, "ann", remove=["bob"])
    left_at = history.now
    history.change(group, "ann", add=["bob"])
    await history.append()
    past, id_ = past_of(log, pool), int(group.id)
    first, second, third = [await past.membership(id_, "bob", Moment(version=number)) for number in (1, 2, 3)]
    assert (first.is_member, first.joined_version, first.left_at) == (True, 1, None)
    assert (second.is_member, second.left_version, second.read_seq) == (False, 2, None)
    assert (third.is_member, third.joined_version, third.left_version) == (True, 3, 2)
    assert datetime.fromisoformat(str(third.left_at)) == left_at
    assert not (await past.membership(id_, "eve", Moment(version=3))).is_member


async def test_what_was_not_yet_or_is_too_much_is_refused(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    group = history.create("ann", "bob")
    for number in range(9):
        history.post(group, "ann", f"message {number}")
    await history.append()
    past, id_ = past_of(log, pool, events_max=10), int(group.id)
    assert (await past.conversation(id_, Moment(version=10), limit=1)).conversation.last_seq == 9
    with pytest.raises(NotFound, match="there was no conversation"):
        await past.conversation(id_, Moment(at=history.now - timedelta(days=1)), limit=1)
    with pytest.raises(Invalid, match="is at version 10"):
        await past.conversation(id_, Moment(version=11), limit=1)
    with pytest.raises(Invalid, match="more than 9 events"):
        await past_of(log, pool, events_max=9).conversation(id_, Moment(at=history.now), limit=1)
    with pytest.raises(Invalid):
        Moment.of(None, None)
    with pytest.raises(Invalid):
        Moment.of(datetime(2026, 1, 1), None)  # noqa: DTZ001  # without a zone


async def test_read_models_that_are_behind_are_waited_for_and_a_poisoned_event_is_named(
    log: MemoryLog, pool: AsyncConnectionPool
) -> None:
    history = History(log)
    group = history.create("ann", "bob")
    await history.append()
    past = past_of(log, pool)
    with pytest.raises(Unavailable, match="have not come to"):
        await past.inbox("ann", history.now, limit=1)
    assert (await past.inbox("ann", history.now - timedelta(days=1), limit=1)).conversations == []
    await append(log, [Record(f"conv.0.{group.id}", b"?", {"Rr-Type": "message.posted", "Rr-Version": "2"})])
    with pytest.raises(LogUnavailable, match="CONV-0:2 cannot be decoded"):
        await past.conversation(int(group.id), Moment(at=history.now), limit=1)
