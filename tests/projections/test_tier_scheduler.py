"""Rounds of the store scheduler: dry, twice at once, killed at random points, and while somebody reads everything."""

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import psycopg
import pytest
import pytest_asyncio
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from projections.queries import Queries
from projections.tiers.cold import Cold
from projections.tiers.months import MODELS, warm_months
from projections.tiers.moves import move
from projections.tiers.policy import KINDS, WarmPolicy
from projections.tiers.scheduler import Step, StoreScheduler
from projections.verification import CannotCompare, verify
from streams.memory import MemoryLog
from tests.projections.archived import ColdStore
from tests.projections.history import STREAM, History
from tests.projections.moving import serving
from tests.projections.workers import Project, applied, rows

NOW = datetime(2026, 8, 15, tzinfo=UTC)
EVERYTHING = "SELECT conversation_id, seq, version, sender_id, body FROM messages ORDER BY 1, 2"
WALK = 300  # pages


@pytest_asyncio.fixture(loop_scope="session")
async def chats(
    pool: AsyncConnectionPool, log: MemoryLog, project: Project, store: ColdStore, months: None
) -> list[Conversation]:
    """Twelve conversations, each with two hundred messages over six months, projected and archived."""
    history = History(log, step=timedelta(minutes=105))
    kinds = ("group", "direct", "channel")
    made = [history.create("ann", f"bob{number}", kind=kinds[number % 3], name=None) for number in range(12)]
    for number in range(2_400):
        conversation = made[number % 12]
        history.post(conversation, "ann", f"{number} é", client_msg_id=f"m{number}")
    records, last = history.records(), 0
    for start in range(0, len(records), 1_000):
        last = await log.append(STREAM, records[start : start + 1_000], expected_last_sequence=last)
    async with project() as workers:
        await applied(workers, last)
    await store.archive(log, STREAM)
    return made


def scheduler(pool: AsyncConnectionPool, store: ColdStore, policy: str = "2") -> StoreScheduler:
    return StoreScheduler(pool, Cold(store, partitions=1), WarmPolicy.parse(policy), now=lambda: NOW)


async def steps(scheduler: StoreScheduler, *, dry_run: bool = False) -> list[Step]:
    return [step async for step in scheduler.round(dry_run=dry_run)]


async def test_a_dry_round_tells_and_a_round_does_what_was_told(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    before = await rows(pool, EVERYTHING)
    told = await steps(scheduler(pool, store), dry_run=True)
    assert await rows(pool, EVERYTHING) == before
    assert {step.outcome for step in told} == {"due"}
    done = await steps(scheduler(pool, store))
    assert [(step.what, step.part, step.rows) for step in done] == [(step.what, step.part, step.rows) for step in told]
    assert await steps(scheduler(pool, store)) == []


async def test_a_round_tells_what_it_is_at_and_what_has_left(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    told: list[tuple[str, int, int]] = []
    at_work = scheduler(pool, store).round(tell=lambda *work: told.append(work))
    moved = [step async for step in at_work if step.outcome == "moved"]
    assert [(part, done) for part, done, total in told if done == total > 0] == [
        (f"{step.what} {step.part}", step.rows) for step in moved
    ]
    assert {part for part, done, _ in told if not done} >= {part for part, done, _ in told if done}


async def test_two_rounds_at_once_are_one(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    first, second = await asyncio.gather(steps(scheduler(pool, store)), steps(scheduler(pool, store)))
    assert sorted(map(bool, (first, second))) == [False, True]
    assert await rows(pool, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


async def test_what_the_archive_does_not_have_yet_waits(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    await store.execute("ALTER TABLE messages DELETE WHERE seq > 150")
    outcomes = {(step.what, step.outcome) for step in await steps(scheduler(pool, store))}
    assert outcomes == {("messages", "moved"), ("messages", "waiting"), ("changes", "moved")}


async def test_kinds_are_kept_as_long_as_their_policy_says(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    count = "SELECT kind, count(*) FROM messages JOIN conversations USING (conversation_id) GROUP BY 1 ORDER BY 1"
    (_, channels), (_, directs), _ = await rows(pool, count)
    await steps(scheduler(pool, store, "1, direct=0, channel=3"))
    left = dict(await rows(pool, count))
    assert left["direct"] == directs
    assert left["group"] == 4  # the last of each
    assert 4 < left["channel"] < channels
    await steps(scheduler(pool, store, "1"))
    assert dict(await rows(pool, count)) == {"channel": 4, "direct": 4, "group": 4}


async def test_a_random_walk_reads_the_source_while_months_move(
    pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    queries = Queries(pool, cold=Cold(store, partitions=1))
    source = {
        id_: msgspec.json.encode([message for page in found for message in page])
        for id_, found in [(int(chat.id), [await _whole(queries, chat)]) for chat in chats]
    }
    whole = {id_: msgspec.json.decode(data) for id_, data in source.items()}
    dice = random.Random(5)
    touched: set[tuple[str, ...]] = set()
    moving = asyncio.create_task(_move_slowly(pool, store))
    for number in range(WALK):
        if number == WALK // 2:
            await moving
        id_, limit = int(dice.choice(chats).id), dice.randint(1, 60)
        before = dice.choice([None, dice.randint(1, 210)])
        page, tiers = await queries.messages_page(id_, "ann", before=before, after=None, limit=limit)
        expected = [message for message in whole[id_] if before is None or message["seq"] < before][-limit:]
        assert msgspec.to_builtins(page.messages) == expected
        touched.add(tiers)
    assert touched == {("warm",), ("cold",), ("warm", "cold")}


async def test_verification_compares_what_has_moved_through_the_archive(
    database: str, log: MemoryLog, pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    async def differing(cold: ColdStore | None = store) -> list[tuple[str, int | None]]:
        report = await verify(log, database, partitions=1, wait_s=0.2, cold=cold)
        return [(difference.where, difference.conversation_id) for difference in report.differences]

    assert await differing(None) == []
    await steps(scheduler(pool, store))
    assert await differing() == []
    with pytest.raises(CannotCompare):
        await differing(None)
    first, second = int(chats[0].id), int(chats[1].id)
    async with pool.connection() as connection:  # of a month that is warm: the archive is no excuse
        await connection.execute("DELETE FROM messages WHERE conversation_id = %s AND seq = 195", (first,))
    assert await differing() == [("messages", first)]
    for table in ("messages", "events"):
        where = f"version = 9 AND {'conversation_id' if table == 'messages' else 'subject'}"
        key = second if table == "messages" else f"'conv.0.{second}'"
        await store.execute(f"ALTER TABLE {table} DELETE WHERE {where} = {key}")
    assert await differing() == [("messages", first), ("messages", second), ("changes", second)]


async def test_a_mover_killed_at_any_statement_has_done_all_or_nothing(
    database: str, pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    queries = Queries(pool, cold=Cold(store, partitions=1))
    whole = {int(chat.id): await _whole(queries, chat) for chat in chats}
    leaving = dict.fromkeys(KINDS, datetime(2026, 4, 1, tzinfo=UTC))
    for model in MODELS:
        async with pool.connection() as watching:
            month = (await warm_months(watching, model))[1]
        contents = f"SELECT * FROM {month.partition} ORDER BY 1, 2"
        before = await rows(pool, contents)
        for number in count(1):
            async with await Dying.connect(database, autocommit=True) as connection:
                connection.left = number
                try:
                    assert await move(connection, store, month, leaving=leaving) is not None
                    break
                except psycopg.OperationalError:
                    assert await rows(pool, contents) == before
                    assert await rows(pool, "SELECT count(*) FROM pg_class WHERE relname LIKE '%_kept'") == [(0,)]
        assert number > 10
    for chat in chats:
        assert await _whole(queries, chat) == whole[int(chat.id)]


async def test_a_mover_killed_at_random_moments_loses_and_doubles_nothing(
    database: str, pool: AsyncConnectionPool, store: ColdStore, chats: list[Conversation]
) -> None:
    queries = Queries(pool, cold=Cold(store, partitions=1))
    whole = {int(chat.id): await _whole(queries, chat) for chat in chats}
    dice = random.Random(7)
    async with serving(store) as port:
        for kill in (True, True, True, False):
            mover = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.projections.moving", database, str(port), NOW.isoformat()),
                stdout=asyncio.subprocess.PIPE,
            )
            assert mover.stdout is not None
            async with asyncio.timeout(60):
                assert await mover.stdout.readline() == b"began\n"
                if kill:
                    await asyncio.sleep(dice.uniform(0.01, 0.4))  # not waiting for anything: the moment is the point
                    mover.kill()
                await mover.wait()
            for chat in chats:
                assert await _whole(queries, chat) == whole[int(chat.id)]
    assert mover.returncode == 0
    assert await steps(scheduler(pool, store)) == []


class Dying(psycopg.AsyncConnection[Any]):
    """A connection whose process is killed when so many statements are left."""

    left = 0

    async def execute(self, *args: Any, **kwargs: Any) -> psycopg.AsyncCursor[Any]:
        self.left -= 1
        if self.left == 0:
            self.pgconn.finish()
        return await super().execute(*args, **kwargs)


async def _whole(queries: Queries, chat: Conversation) -> list[object]:
    page = (await queries.messages_page(int(chat.id), "ann", before=None, after=None, limit=1_000)).page
    return list(msgspec.to_builtins(page.messages))


async def _move_slowly(pool: AsyncConnectionPool, store: ColdStore) -> None:
    """Month after month, so that reading goes on in between."""
    for warm in (7, 6, 5, 4, 3, 2, 1):
        await steps(scheduler(pool, store, str(warm)))
