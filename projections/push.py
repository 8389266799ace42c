"""What gateways read: to attach sessions without a gap, and to find out whether all was pushed that should have been.

Not authorised: a gateway reads on behalf of all its sessions, and the events say who is a member.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from projections.pages import Membership, Positions
from projections.reading import Database
from streams.cursor import Cursor

# The version of a membership is the newest that can be read as of the positions, in the same snapshot: what is stored
# after them is pushed, and what is not in `changes` yet is not told. A head that is ahead of the positions (one
# projection is behind another) is passed over for what `changes` had by then.
_VERSION: Final = """
    CASE WHEN h.sequence <= {position} THEN h.version ELSE (
        SELECT version FROM changes WHERE conversation_id = m.conversation_id AND sequence <= {position}
        ORDER BY version DESC LIMIT 1) END"""

# One row: up to which sequence all read models have come, by partition from 0, of conversations and of users.
_POSITION: Final = """ARRAY(
        SELECT coalesce((
            SELECT min(sequence) FROM checkpoints WHERE partition = number AND projection IN ({projections})
            HAVING count(*) = {count}), 0)
        FROM generate_series(0, %(partitions)s::int - 1) AS number ORDER BY number)"""
_POSITIONS: Final = f"""
    SELECT {_POSITION.format(projections="'conversations', 'heads', 'messages'", count=3)} AS conversations,
        {_POSITION.format(projections="'markers', 'users'", count=2)} AS users"""

_PARTITION: Final = "((m.conversation_id >> 12) & 1023) %% %(partitions)s"
_AT: Final = f"p.conversations[1 + {_PARTITION}]"

_ATTACHABLE: Final = f"""
    WITH p AS MATERIALIZED ({_POSITIONS})
    SELECT p.conversations, p.users, coalesce(u.version, 0), m.conversation_id,
        coalesce({_VERSION.format(position=_AT)}, 0), c.member_count, c.version
    FROM p LEFT JOIN users u ON u.user_id = %(user)s
        LEFT JOIN members m ON m.user_id = %(user)s
        LEFT JOIN conversations c ON c.conversation_id = m.conversation_id
        LEFT JOIN heads h ON h.conversation_id = m.conversation_id"""

_COUNTED: Final = "SELECT member_count, version FROM conversations WHERE conversation_id = %(id)s"

_NEWEST: Final = f"""
    WITH p AS MATERIALIZED ({_POSITIONS})
    SELECT p.conversations, p.users, m.conversation_id, coalesce({_VERSION.format(position=_AT)}, 0)
    FROM p LEFT JOIN (
        SELECT h.* FROM heads h
        WHERE h.conversation_id = ANY(%(ids)s) AND (h.conversation_id = ANY(%(again)s) OR h.sequence > (
            %(since)s::bigint[])[1 + ((h.conversation_id >> 12) & 1023) %% %(partitions)s])
    ) h ON true CROSS JOIN LATERAL (SELECT h.conversation_id) m"""

_JOINED: Final = f"""
    SELECT m.user_id, m.conversation_id, m.joined_version, c.member_count, c.version
    FROM unnest(%(users)s::text[]) AS asked(id) JOIN members m ON m.user_id = asked.id
        JOIN conversations c USING (conversation_id)
    WHERE m.joined_sequence > %(least)s AND m.joined_sequence > (%(since)s::bigint[])[1 + {_PARTITION}]"""

_USER_VERSIONS: Final = "SELECT user_id, version FROM users WHERE user_id = ANY(%(users)s)"


@dataclass(frozen=True, slots=True)
class Attachable:
    """What a user's session is attached to.

    Attributes:
        base: what it is as of.
        user_version: of the user's newest own event, 0 without one.
    """

    base: Cursor
    user_version: int
    memberships: list[Membership]


class PushQueries:
    """Reads for gateways. All methods raise `Unavailable` when Postgres does not answer.

    Args:
        partitions: of the deployment.
    """

    def __init__(self, database: Database, *, partitions: int) -> None:
        self._database = database
        self._partitions = partitions

    async def attachable(self, user_id: str) -> Attachable:
        """All conversations of a user, each with the version that can be read as of the positions."""
        rows = await self._database.rows(_ATTACHABLE, {"user": user_id, "partitions": self._partitions})
        conversations, users, user_version = rows[0][:3]
        memberships = [Membership(*row[3:]) for row in rows if row[3] is not None]
        base = Positions(tuple(conversations), tuple(users)).cursor(user_id)
        return Attachable(base, user_version, memberships)

    async def counted(self, conversation_id: int) -> tuple[int, int]:
        """How many members a conversation has, and as of which version; zeros if it is not there."""
        rows = await self._database.rows(_COUNTED, {"id": conversation_id})
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def newest_versions(
        self, conversation_ids: Sequence[int], *, since: Sequence[int], again: Sequence[int] = ()
    ) -> tuple[Positions, dict[int, int]]:
        """The newest version of those conversations that moved after `since`, and the positions they are as of.

        Args:
            since: a position for each partition.
            again: of the conversations, those that are told whether they moved or not.
        """
        values = {"ids": list(conversation_ids), "since": list(since), "again": list(again)}
        rows = await self._database.rows(_NEWEST, {**values, "partitions": self._partitions})
        positions = Positions(tuple(rows[0][0]), tuple(rows[0][1]))
        return positions, {row[2]: row[3] for row in rows if row[2] is not None}

    async def joined(self, user_ids: Sequence[str], *, since: Sequence[int]) -> list[tuple[str, Membership]]:
        """Which of the users were put into which conversations after `since`: memberships whose `version` is the one
        before the event that made them."""
        values = {"users": list(user_ids), "since": list(since), "least": min(since)}
        rows = await self._database.rows(_JOINED, {**values, "partitions": self._partitions})
        return [
            (user_id, Membership(conversation_id, joined_version - 1, member_count, counted_version))
            for user_id, conversation_id, joined_version, member_count, counted_version in rows
        ]

    async def user_versions(self, user_ids: Sequence[str]) -> dict[str, int]:
        """The version of the newest own event of each user that has one."""
        return dict(await self._database.rows(_USER_VERSIONS, {"users": list(user_ids)}))
