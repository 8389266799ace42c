"""A user who is in many conversations, one of them with a long history."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.appending import Appender, appending
from benchmarks.deployment import Deployment
from domain.conversations import Conversation
from streams.cursor import Cursor
from streams.ports import BATCH_MAX

CONVERSATIONS: Final = 1_000
HISTORY: Final = 100_000  # events of the first conversation
HISTORY_QUICK: Final = 20_000


class Member:
    """Made by `seated`; everything that was appended is in the read models.

    Attributes:
        cursor: of one who has seen everything there was when they were seated.
        history: events of the first conversation then.
    """

    def __init__(self, appender: Appender) -> None:
        self.user_id = f"bench-{secrets.token_hex(4)}"
        self.cursor = Cursor((0,))
        self.history = 0
        self._appender = appender
        self._conversations: list[Conversation] = []

    @classmethod
    @asynccontextmanager
    async def seated(cls, deployment: Deployment, *, quick: bool) -> "AsyncIterator[Member]":
        """A new user in `CONVERSATIONS` groups, a message in each."""
        async with appending(deployment) as appender:
            member = cls(appender)
            await member._gather(HISTORY_QUICK if quick else HISTORY)
            yield member

    @property
    def conversation_ids(self) -> list[str]:
        """Of all conversations."""
        return [conversation.id for conversation in self._conversations]

    async def hear_from(self, conversations: int) -> None:
        """A message in each of the first so many conversations."""
        for conversation in self._conversations[:conversations]:
            self._appender.post(conversation)
        await self._appender.append(self._conversations[:conversations])
        await self._appender.settled()

    async def _gather(self, history: int) -> None:
        appender = self._appender
        self._conversations = [
            appender.create(f"bench {number}", ["filler", self.user_id]) for number in range(CONVERSATIONS)
        ]
        for conversation in self._conversations:
            appender.post(conversation)
        await appender.append(self._conversations)
        await appender.settled()
        first = self._conversations[0]
        while first.version < history:
            for _ in range(BATCH_MAX):
                appender.post(first)
            await appender.append([first])
        await appender.settled()
        self.history = first.version
        self.cursor = Cursor((await appender.last_sequence(),))
