"""A user who is in many conversations, one of them with a long history.

They are appended to the log as a writer would, which is faster than to ask for them; the live projections do the rest.
The server's own writer finds its expectation failed at its next append, and reads the tail: the fence at work.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, cast

import psycopg

from benchmarks.deployment import Deployment
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import IdSequence
from streams import codec, subjects
from streams.cursor import Cursor
from streams.jetstream import JetStream
from streams.ports import BATCH_MAX, Log, Record

CONVERSATIONS: Final = 1_000
HISTORY: Final = 100_000  # events of the first conversation
HISTORY_QUICK: Final = 20_000
SETTLE_S: Final = 120.0

_STREAM: Final = subjects.stream(subjects.CONV, 0)


class Member:
    """Made by `seated`; everything that was appended is in the read models.

    Attributes:
        cursor: of one who has seen everything there was when they were seated.
        history: events of the first conversation then.
    """

    def __init__(self, log: Log, postgres_url: str) -> None:
        self.user_id = f"bench-{secrets.token_hex(4)}"
        self.cursor = Cursor((0,))
        self.history = 0
        self._log = log
        self._postgres_url = postgres_url
        self._conversations: list[Conversation] = []
        self._ids = IdSequence(int(datetime.now(UTC).timestamp() * 1000) + 1000)

    @classmethod
    @asynccontextmanager
    async def seated(cls, deployment: Deployment, *, quick: bool) -> "AsyncIterator[Member]":
        """A new user in `CONVERSATIONS` groups, a message in each."""
        jetstream = await JetStream.connect(deployment.nats_url, name="riverrun-bench")
        try:
            member = cls(jetstream.log, deployment.postgres_url)
            await member._gather(HISTORY_QUICK if quick else HISTORY)
            yield member
        finally:
            await jetstream.close()

    @property
    def conversation_ids(self) -> list[str]:
        """Of all conversations."""
        return [conversation.id for conversation in self._conversations]

    async def hear_from(self, conversations: int) -> None:
        """A message in each of the first so many conversations."""
        for conversation in self._conversations[:conversations]:
            self._post(conversation)
        await self._append(self._conversations[:conversations])

    async def _gather(self, history: int) -> None:
        for number in range(CONVERSATIONS):
            conversation = Conversation.create(
                self._ids.next(0, 0),
                actor_id="filler",
                kind="group",
                members=[self.user_id],
                name=f"bench {number}",
                settings={},
                now=datetime.now(UTC),
            )
            self._post(conversation)
            self._conversations.append(conversation)
        await self._append(self._conversations)
        first = self._conversations[0]
        while first.version < history:
            for _ in range(BATCH_MAX):
                self._post(first)
            await self._append([first], settle=False)
        await self._append([])
        self.history = first.version
        self.cursor = Cursor((await self._log.last_sequence(_STREAM),))

    def _post(self, conversation: Conversation) -> None:
        conversation.post_message(
            actor_id="filler",
            client_msg_id=f"m{conversation.version}",
            text="words " * 16,
            reply_to=None,
            mentions=[],
            new_id=lambda: self._ids.next(0, 0),
            now=datetime.now(UTC),
            was_looked_up=True,
        )

    async def _append(self, conversations: Iterable[Conversation], *, settle: bool = True) -> None:
        records: list[Record] = []
        for conversation in conversations:
            subject = subjects.aggregate(subjects.CONV, 0, conversation.id)
            events = cast("Sequence[Event]", conversation.collect_events())
            records += [codec.encode(event, subject, codec.Metadata()) for event in events]
        last = await self._log.last_sequence(_STREAM)
        for start in range(0, len(records), BATCH_MAX):
            batch = records[start : start + BATCH_MAX]
            last = await self._log.append(_STREAM, batch, expected_last_sequence=last)
        if settle:
            await self._settle(last)

    async def _settle(self, last: int) -> None:
        """Wait until the live read models have a sequence."""
        statement = "SELECT min(sequence) FROM checkpoints WHERE projection IN ('conversations', 'heads', 'messages')"
        async with await psycopg.AsyncConnection.connect(self._postgres_url, autocommit=True) as connection:
            async with asyncio.timeout(SETTLE_S):
                while True:
                    row = await (await connection.execute(statement)).fetchone()
                    if row is not None and row[0] >= last:
                        return
                    await asyncio.sleep(0.1)
