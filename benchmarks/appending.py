"""Conversations appended to the log as a writer would, which is faster than to ask for them.

The live projections do the rest. The server's own writer finds its expectation failed at its next append, and reads
the tail: the fence at work.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, cast

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.deployment import Deployment
from commands.repository import Repository, snapshot_of
from commands.snapshots import PostgresSnapshots
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import IdSequence
from streams import codec, subjects
from streams.jetstream import JetStream
from streams.ports import BATCH_MAX, Log, Record

SETTLE_S: Final = 120.0

_STREAM: Final = subjects.stream(subjects.CONV, 0)
_READ: Final = "SELECT min(sequence) FROM checkpoints WHERE projection IN ('conversations', 'heads', 'messages')"


class Appender:
    """Made by `appending`; one at a time writes."""

    def __init__(self, log: Log, postgres_url: str) -> None:
        self._log = log
        self._postgres_url = postgres_url
        self._ids = IdSequence(int(datetime.now(UTC).timestamp() * 1000) + 1000)

    def create(self, name: str, members: Sequence[str]) -> Conversation:
        """A new group, the first member its owner. Nothing is appended yet."""
        return Conversation.create(
            self._ids.next(0, 0),
            actor_id=members[0],
            kind="group",
            members=list(members[1:]),
            name=name,
            settings={},
            now=datetime.now(UTC),
        )

    def post(self, conversation: Conversation) -> None:
        """A message of its owner's. Nothing is appended yet."""
        conversation.post_message(
            actor_id=conversation.created_by,
            client_msg_id=f"m{conversation.version}",
            text="words " * 16,
            reply_to=None,
            mentions=[],
            new_id=lambda: self._ids.next(0, 0),
            now=datetime.now(UTC),
            was_looked_up=True,
        )

    async def append(self, conversations: Iterable[Conversation]) -> None:
        """What happened in them since the last time."""
        records: list[Record] = []
        for conversation in conversations:
            subject = subjects.aggregate(subjects.CONV, 0, conversation.id)
            events = cast("Sequence[Event]", conversation.collect_events())
            records += [codec.encode(event, subject, codec.Metadata()) for event in events]
        last = await self.last_sequence()
        for start in range(0, len(records), BATCH_MAX):
            batch = records[start : start + BATCH_MAX]
            last = await self._log.append(_STREAM, batch, expected_last_sequence=last)

    async def keep_snapshot(self, conversation: Conversation) -> None:
        """Keep a snapshot of it, as the writer does every so often. All of it is appended."""
        async with AsyncConnectionPool(self._postgres_url, min_size=1, max_size=1, open=False) as pool:
            repository = Repository(self._log, PostgresSnapshots(pool), family=subjects.CONV, partition=0)
            await repository.save(snapshot_of(subjects.CONV, conversation, await self.last_sequence()))

    async def last_sequence(self) -> int:
        """Of the log."""
        return await self._log.last_sequence(_STREAM)

    async def settled(self) -> None:
        """Wait until the live read models have all of it."""
        last = await self.last_sequence()
        async with await psycopg.AsyncConnection.connect(self._postgres_url, autocommit=True) as connection:
            async with asyncio.timeout(SETTLE_S):
                while True:
                    row = await (await connection.execute(_READ)).fetchone()
                    if row is not None and row[0] >= last:
                        return
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def appending(deployment: Deployment) -> AsyncIterator[Appender]:
    """An appender to a deployment's log, which has one partition."""
    jetstream = await JetStream.connect(deployment.nats_url, name="riverrun-bench")
    try:
        yield Appender(jetstream.log, deployment.postgres_url)
    finally:
        await jetstream.close()
