"""What Valkey says: how far the hot store is, which gateways are alive, and when users were last seen."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from projections import hot_keys
from runtime.tracing.facts import HotFact
from runtime.tracing.locate import Found

ANSWER_S: Final = 2.0
GATEWAYS: Final = "riverrun:gateways"  # see `api.presence_scripts`
PRESENCE: Final = "riverrun:presence:"


class Valkey:
    """Read only. What does not answer is told as such, or as not known; nothing is raised."""

    def __init__(self, url: str) -> None:
        self._valkey = redis.asyncio.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._valkey.aclose()

    async def hot(self, found: Found) -> HotFact:
        """How far the hot store is, and whether it has the conversation's head."""
        try:
            epoch = await self._ask(self._valkey.get(hot_keys.EPOCH))
            if epoch is None:
                return HotFact("no epoch is in force: it is empty, and inboxes are read from Postgres")
            root = hot_keys.root(epoch.decode())
            position = await self._ask(self._valkey.hget(f"{root}at", found.delivery.stream))
            head = await self._ask(self._valkey.get(f"{root}head:{found.conversation_id}"))
        except (RedisError, OSError) as error:
            return HotFact(f"Valkey does not answer: {type(error).__name__}")
        return HotFact(
            None,
            None if position is None else int(position),
            None if head is None else hot_keys.unpacked_head(head).last_seq,
        )

    async def gateways(self) -> int | None:
        """How many gateways are alive; `None`: not known."""
        try:
            return int(await self._ask(self._valkey.zcount(GATEWAYS, time.time() * 1000, "+inf")))
        except (RedisError, OSError):
            return None

    async def last_seen(self, users: Sequence[str]) -> dict[str, datetime]:
        """When users who are known to presence last left, as of now."""
        seen = {}
        try:
            for user_id in users:
                at_ms = await self._ask(self._valkey.hget(PRESENCE + user_id, "last_seen"))
                if at_ms:
                    seen[user_id] = datetime.fromtimestamp(int(at_ms) / 1000, UTC)
        except (RedisError, OSError):
            return seen
        return seen

    @staticmethod
    async def _ask(asked: Any) -> Any:
        # `Any`: redis-py types its answers as anything.
        return await asked
