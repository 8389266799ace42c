"""A town: many users, each in a few conversations of mixed sizes."""

import secrets
from typing import Final

from benchmarks.appending import Appender
from benchmarks.deployment import Deployment
from domain.conversations import Conversation

SIZES: Final = (2, 5, 20)  # of the conversations: each user is in one of each size


class Town:
    """New users in new conversations. `build` first.

    Attributes:
        tokens: of the users.
    """

    def __init__(self, deployment: Deployment, appender: Appender, *, users: int) -> None:
        run = secrets.token_hex(4)
        self._users = [f"bench-{run}-{number}" for number in range(users)]
        self.tokens = [deployment.token(user_id) for user_id in self._users]
        self._appender = appender
        self._conversations: list[Conversation] = []

    async def build(self) -> None:
        """Make the conversations, a message in each; everything is in the read models then."""
        for size in SIZES:
            for start in range(0, len(self._users), size):
                crew = self._users[start : start + size]
                self._conversations.append(self._appender.create(f"bench {size} {start}", crew))
        await self.talk()

    async def talk(self) -> None:
        """One message in every conversation, and all in the read models."""
        for conversation in self._conversations:
            self._appender.post(conversation)
        await self._appender.append(self._conversations)
        await self._appender.settled()
