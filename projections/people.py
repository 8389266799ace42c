"""Queries about users: profiles, devices, blocks, acquaintances, how far they have read."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound
from projections.pages import Block, Device, Profile, ReadReceipt, ReadReceiptsPage, Standing
from projections.progress import Progress
from projections.reading import IS_MEMBER, Database, MinVersion, no_such_conversation
from projections.rounds import Rounds
from streams.public import rfc3339

_MAY_SEE = """
    WITH mine AS MATERIALIZED (SELECT conversation_id FROM members WHERE user_id = %(viewer)s)
    SELECT %(viewer)s = %(user)s OR EXISTS (
        SELECT FROM members WHERE user_id = %(user)s AND conversation_id IN (SELECT * FROM mine) LIMIT 1)"""

_PROFILE = "SELECT display_name, avatar_url, attributes FROM users WHERE user_id = %(user)s"

_DEVICES = """
    SELECT device_id, kind, registered_at, revoked_at FROM devices WHERE user_id = %(user)s ORDER BY device_id"""

# Of many users, one of each.
_ONE_EACH = """
    SELECT asked.number, d.device_id, d.kind, d.registered_at, d.revoked_at
    FROM unnest(%(users)s::text[], %(devices)s::text[]) WITH ORDINALITY AS asked (user_id, device_id, number)
        JOIN devices d ON d.user_id = asked.user_id COLLATE "C" AND d.device_id = asked.device_id COLLATE "C"
"""

TOGETHER_MAX: Final = 256  # devices looked up at once: one row each

_BLOCKS = "SELECT blocked_id, changed_at FROM blocks WHERE user_id = %(user)s AND blocked ORDER BY blocked_id"

_READ_RECEIPTS = f"""
    SELECT m.user_id, greatest(m.posted_seq, r.read_seq), CASE WHEN r.read_seq >= m.posted_seq THEN r.read_at END
    FROM members m LEFT JOIN markers r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
    WHERE m.conversation_id = %(id)s AND m.user_id > %(after)s AND {IS_MEMBER}
    ORDER BY m.user_id LIMIT %(limit)s"""

_SELECT_IS_MEMBER = f"SELECT {IS_MEMBER}"

# For each of the others one look at their own conversations, which ends at the first that is shared: a conversation
# with many members costs no more than another.
_ACQUAINTED = """
    WITH mine AS MATERIALIZED (SELECT conversation_id FROM members WHERE user_id = %(user)s)
    SELECT other FROM unnest(%(others)s::text[]) AS asked (other) CROSS JOIN LATERAL (
        SELECT FROM members WHERE user_id = other COLLATE "C" AND conversation_id IN (SELECT * FROM mine) LIMIT 1) found
    WHERE NOT EXISTS (SELECT FROM blocks WHERE user_id = other COLLATE "C" AND blocked_id = %(user)s AND blocked)"""

_STANDING = """
    SELECT c.kind, coalesce(h.last_seq, 0), m.joined_seq, m.posted_seq, c.member_count
    FROM members m JOIN conversations c USING (conversation_id) LEFT JOIN heads h USING (conversation_id)
    WHERE m.conversation_id = %(id)s AND m.user_id = %(user)s"""


class UserQueries:
    """Reads about users, for one deployment.

    Args:
        pool: opened and closed by its maker.
        wait_s: how long a read waits for `min_version`.
        partitions: of the deployment.
        progress: rung by the workers of this process, if it has any.

    All methods raise `Unavailable` when Postgres does not answer.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        *,
        wait_s: float = 2.0,
        partitions: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self._database = Database(pool)
        # Every session that begins asks for its device, and thousands begin at once when a gateway has died.
        self._one_each = Rounds(self._devices_together, most=TOGETHER_MAX)
        self._versions = MinVersion(self._database, wait_s=wait_s, partitions=partitions, progress=progress)

    async def profile(self, viewer_id: str, user_id: str) -> Profile:
        """A profile, for the user and for who shares a conversation with them; empty where none was set.

        Raises:
            NotFound: for everybody else, whether or not there is such a user.
        """
        if not (await self._database.rows(_MAY_SEE, {"viewer": viewer_id, "user": user_id}))[0][0]:
            raise NotFound("there is no such user")
        rows = await self._database.rows(_PROFILE, {"user": user_id})
        if not rows:
            return Profile(user_id)
        display_name, avatar_url, attributes = rows[0]
        return Profile(user_id, display_name, avatar_url, msgspec.json.decode(attributes))

    async def devices(self, user_id: str) -> list[Device]:
        """All devices of a user, revoked ones too, by device id."""
        rows = await self._database.rows(_DEVICES, {"user": user_id})
        return [_device(*row) for row in rows]

    async def device(self, user_id: str, device_id: str) -> Device | None:
        """One device of a user, if it is known. Those who ask at the same time are answered together."""
        return await self._one_each.ask((user_id, device_id))

    async def _devices_together(self, asked: Sequence[tuple[str, str]]) -> "list[Device | None]":
        values = {"users": [user_id for user_id, _ in asked], "devices": [device_id for _, device_id in asked]}
        found = {row[0]: _device(*row[1:]) for row in await self._database.rows(_ONE_EACH, values)}
        return [found.get(number) for number in range(1, len(asked) + 1)]

    async def blocks(self, user_id: str) -> list[Block]:
        """Whom a user has blocked, by user id."""
        rows = await self._database.rows(_BLOCKS, {"user": user_id})
        return [Block(blocked_id, rfc3339(blocked_at)) for blocked_id, blocked_at in rows]

    async def read_receipts(
        self, conversation_id: int, user_id: str, *, after: str | None, limit: int, min_version: int = 0
    ) -> ReadReceiptsPage:
        """How far the members of a conversation have read, in the order of their ids, from after one of them.

        Raises:
            NotFound: the user is not a member. Unavailable: the read models do not reach `min_version` in time.
        """
        await self._versions.reached(conversation_id, user_id, min_version)
        values = {"id": conversation_id, "user": user_id, "after": after or "", "limit": limit + 1}
        rows = await self._database.rows(_READ_RECEIPTS, values)
        if not rows and not (await self._database.rows(_SELECT_IS_MEMBER, values))[0][0]:
            raise no_such_conversation()
        receipts = [
            ReadReceipt(user, seq, None if read_at is None else rfc3339(read_at)) for user, seq, read_at in rows[:limit]
        ]
        return ReadReceiptsPage(receipts, len(rows) > limit)

    async def acquainted(self, user_id: str, others: Iterable[str]) -> set[str]:
        """Those of `others` who share a conversation with a user and have not blocked them."""
        return {row[0] for row in await self._database.rows(_ACQUAINTED, {"user": user_id, "others": list(others)})}

    async def standing(self, conversation_id: int, user_id: str, *, min_version: int = 0) -> Standing:
        """What a conversation is to one of its members.

        Raises:
            NotFound: the user is not a member. Unavailable: the read models do not reach `min_version` in time.
        """
        await self._versions.reached(conversation_id, user_id, min_version)
        rows = await self._database.rows(_STANDING, {"id": conversation_id, "user": user_id})
        if not rows:
            raise no_such_conversation()
        return Standing(*rows[0])


def _device(device_id: str, kind: str, registered_at: datetime, revoked_at: datetime | None) -> Device:
    return Device(
        device_id,
        kind,
        registered_at=rfc3339(registered_at),
        revoked_at=None if revoked_at is None else rfc3339(revoked_at),
        revoked=revoked_at is not None and revoked_at >= registered_at,
    )
