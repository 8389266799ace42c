"""Dead events: listed, and replayed once what was wrong is mended, whatever has happened to their aggregate since."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio
from psycopg.errors import IntegrityError
from psycopg_pool import AsyncConnectionPool

from domain.events import ProfileUpdated, ReadMoved
from projections.applying import TRIES
from projections.conversations import ConversationsProjection
from projections.dead import DeadEvent, by_aggregate, dead_events
from projections.hot_keys import EPOCH
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.projection import Connection, LoggedEvent
from projections.replay import replay
from projections.verification import verify
from runtime.embedded.servers import EmbeddedServers
from streams.jetstream import JetStream
from streams.memory import MemoryLog
from streams.topology import Topology
from tests.conftest import NatsServerFactory
from tests.projections.history import USERS, History, UserHistory, chat
from tests.projections.workers import Project, applied, of_conversations, projections, rows, running

SEQS = "SELECT seq FROM messages ORDER BY seq"
POISON = "poison"


@asynccontextmanager
async def constrained(pool: AsyncConnectionPool, table: str, check: str) -> AsyncIterator[None]:
    """A defect that is mended later: a constraint that some events violate."""
    async with pool.connection() as connection:
        await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT defect CHECK ({check})".encode())
    try:
        yield
    finally:
        async with pool.connection() as connection:
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT defect".encode())


NOT_POISON = f"body NOT LIKE '%{POISON}%'"


async def talked(log: MemoryLog, project: Project) -> History:
    """Two messages, applied: the month's partition is there, so that it can be given a constraint."""
    history = chat(log, 2)
    last = await history.append()
    async with project() as workers:
        await applied(workers, last)
    return history


async def replay_all(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    named = {projection.name: projection for projection in projections()}
    async with pool.connection() as connection:
        for events in by_aggregate(await dead_events(log)):
            await replay(log, connection, named[events[0].projection], events)


async def differences(log: MemoryLog, pool: AsyncConnectionPool) -> list[str]:
    return [str(one) for one in (await verify(log, str(pool.conninfo), partitions=1, wait_s=0)).differences]


async def test_a_dead_message_is_listed_and_replayed(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = await talked(log, project)
    history.post(history.conversations[0], "bob", POISON)
    history.post(history.conversations[0], "ann", "after")
    async with constrained(pool, "messages", NOT_POISON):
        last = await history.append()
        async with project() as workers:
            await applied(workers, last)
    assert await rows(pool, SEQS) == [(1,), (2,), (4,)]
    [dead] = await dead_events(log)
    assert (dead.projection, dead.stream, dead.sequence) == ("messages", "CONV-0", 4)
    assert "defect" in dead.error
    await replay_all(log, pool)
    assert await rows(pool, SEQS) == [(1,), (2,), (3,), (4,)]
    assert await dead_events(log) == []
    assert await differences(log, pool) == []


async def test_what_came_after_a_dead_event_has_its_effect_after_the_replay(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    """Applied late as it is, the removal would take out who has come back since."""
    history = History(log)
    group = history.create("ann", "bob", "cid")
    history.change(group, "ann", remove=["bob"])
    history.change(group, "ann", add=["bob"])
    history.post(group, "bob", "here again")
    async with constrained(pool, "departures", "user_id <> 'bob'"):
        last = await history.append()
        async with project() as workers:
            await applied(workers, last)
        assert await differences(log, pool) != []
    await replay_all(log, pool)
    assert await differences(log, pool) == []


async def test_a_lost_creation_and_all_that_died_of_it_come_back_at_once(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = History(log)
    group = history.create("ann", "bob", name=POISON)
    history.change(group, "ann", add=["cid"])
    async with constrained(pool, "conversations", f"name <> '{POISON}'"):
        last = await history.append()
        async with project() as workers:
            await applied(workers, last)
    dead = await dead_events(log)
    assert [event.sequence for event in dead] == [1, 2]
    assert len(by_aggregate(dead)) == 1
    await replay_all(log, pool)
    assert await dead_events(log) == []
    assert await differences(log, pool) == []


async def test_what_still_cannot_be_applied_changes_nothing_and_stays_dead(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = await talked(log, project)
    history.post(history.conversations[0], "bob", POISON)
    async with constrained(pool, "messages", NOT_POISON):
        last = await history.append()
        async with project() as workers:
            await applied(workers, last)
        with pytest.raises(IntegrityError):
            await replay_all(log, pool)
        assert await rows(pool, SEQS) == [(1,), (2,)]
        assert len(await dead_events(log)) == 1


async def test_a_users_dead_events_are_replayed_too(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    users = UserHistory(log)
    users.happened("a.b", ProfileUpdated, display_name=POISON, avatar_url=None, attributes={})
    users.happened("a.b", ReadMoved, conversation_id=7, seq=3)
    users.happened("c", ReadMoved, conversation_id=7, seq=2)
    async with constrained(pool, "users", f"display_name <> '{POISON}'"):
        last = await users.append()
        async with project() as workers:
            await applied(workers, last, USERS)
    assert [event.subject for event in await dead_events(log)] == ["user.0.a%2Eb"]
    await replay_all(log, pool)
    assert await rows(pool, "SELECT display_name FROM users WHERE user_id = 'a.b'") == [(POISON,)]
    assert await rows(pool, "SELECT user_id, read_seq FROM markers ORDER BY 1") == [("a.b", 3), ("c", 2)]


async def test_a_worker_that_runs_goes_on_after_a_replay(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project
) -> None:
    history = await talked(log, project)
    history.post(history.conversations[0], "bob", POISON)
    async with project() as workers:
        async with constrained(pool, "messages", NOT_POISON):
            await applied(workers, await history.append())
        await replay_all(log, pool)
        history.post(history.conversations[0], "ann", "after")
        await applied(workers, await history.append())
    assert await rows(pool, SEQS) == [(1,), (2,), (3,), (4,)]
    assert await differences(log, pool) == []


class Hesitant(MessagesProjection):
    """Fails on the third event: among others always, alone some times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        if any(logged.sequence == 3 for logged in batch):
            self.failures -= len(batch) == 1
            if len(batch) > 1 or self.failures >= 0:
                raise ValueError("not now")
        await super().apply(connection, batch)


@pytest.mark.parametrize(("failures", "dead"), [(TRIES - 1, 0), (TRIES, 1)])
async def test_an_event_is_buried_after_some_tries_and_not_before(
    log: MemoryLog, pool: AsyncConnectionPool, project: Project, failures: int, dead: int
) -> None:
    last = await chat(log, 3).append()
    async with project([Hesitant(failures)]) as workers:
        await applied(workers, last)
        assert workers[0].dead_total == dead
    assert len(await dead_events(log)) == dead


async def test_of_a_reservation_nothing_is_dropped(log: MemoryLog, pool: AsyncConnectionPool, project: Project) -> None:
    last = await chat(log, 1).append()
    async with project(of_conversations()) as workers:
        await applied(workers, last)
    before = await rows(pool, "SELECT * FROM conversations")
    async with pool.connection() as connection:
        reservation = DeadEvent(1, "conversations", "CONV-0", 9, "conv.0.dm.0011", "it could not be read")
        await replay(log, connection, ConversationsProjection(), [reservation])
    assert await rows(pool, "SELECT * FROM conversations") == before


async def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "runtime.cli", "dead", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_command_lists_and_replays(
    tmp_path: Path, nats_server: NatsServerFactory, servers: EmbeddedServers, database: str, pool: AsyncConnectionPool
) -> None:
    server = await nats_server()
    record = {
        "url": "http://127.0.0.1:1",
        "nats_url": server.url,
        "postgres_url": database,
        "valkey_url": servers.valkey_url,
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "jwt.secret").write_text("s" * 32)
    jetstream = await JetStream.connect(server.url, name="test")
    await jetstream.log.ensure(Topology())
    history = History(jetstream.log)
    history.post(history.create("ann", "bob"), "ann", POISON)
    where = ("--data-dir", str(tmp_path))
    async with constrained(pool, "heads", f"preview <> '{POISON}'"):
        last = await history.append()
        async with running(jetstream.log, pool, Progress(), projections()) as workers:
            await applied(workers, last)
        done = await command("list", "--json", *where)
        assert json.loads(done.stdout)["sequence"] == last, done.stderr
        done = await command("replay", *where)
        assert (done.returncode, done.stdout) == (1, "0 events replayed, 1 still dead\n"), done.stderr
        assert "still cannot be applied" in done.stderr
    done = await command("replay", "--projection", "messages", *where)
    assert (done.returncode, done.stdout) == (0, "0 events replayed, 0 still dead\n")
    async with redis.asyncio.Redis.from_url(servers.valkey_url) as valkey:
        await valkey.set(EPOCH, "before")
        done = await command("replay", *where)
        assert (done.returncode, done.stdout) == (0, "1 events replayed, 0 still dead\n"), done.stderr
        assert await valkey.get(EPOCH) is None
    assert await rows(pool, "SELECT last_seq, preview FROM heads") == [(1, POISON)]
    assert "0 dead events" in (await command("list", *where)).stdout
    await jetstream.close()
