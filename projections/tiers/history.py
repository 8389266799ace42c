"""One cursor through the tiers: a conversation's messages and events, whichever tier they lie in, as one sequence.

`seq` and `version` have no holes, so a page knows the exact numbers that it owes. When all of them are among the newest
messages that the hot tier has, it is done. Else it takes what the warm tier has of them, and asks the cold tier for
those that are missing, and for no others. Where a month lies is remembered nowhere for this: what leaves the warm tier
is in the cold one before, so at no moment is a number in neither.

Membership is asked in the statement that reads: of the hot tier, or of the warm one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from domain.errors import Unavailable
from domain.messages import Receipt, content_digest
from projections.entries import MESSAGE_COLUMNS, message_of
from projections.hot import HotStore
from projections.pages import EventsPage, MessagesPage, StoredEvent
from projections.reading import IS_MEMBER, Database, Row, no_such_conversation
from projections.tiers.cold import Cold
from streams.public import rfc3339

HOT: Final = "hot"
WARM: Final = "warm"
COLD: Final = "cold"

_SEQ_MAX: Final = (1 << 63) - 1

# The head says what the last number is: the newest of all that is owed may be in a month that is gone.
_MESSAGES: Final = f"""
    SELECT {MESSAGE_COLUMNS},
        (SELECT last_seq FROM heads WHERE conversation_id = %(id)s)
    FROM messages WHERE conversation_id = %(id)s AND seq > %(after)s AND seq < %(before)s AND {IS_MEMBER}
    ORDER BY seq {{direction}} LIMIT %(limit)s"""
_MESSAGES_UP: Final = _MESSAGES.format(direction="ASC")
_MESSAGES_DOWN: Final = _MESSAGES.format(direction="DESC")

_EVENTS_AFTER: Final = """
    SELECT type, version, occurred_at, actor_id, data, (SELECT version FROM heads WHERE conversation_id = %(id)s)
    FROM changes WHERE conversation_id = %(id)s AND version > %(after)s
    ORDER BY changes.version LIMIT %(limit)s"""
_EVENTS: Final = _EVENTS_AFTER.replace("ORDER BY", f"AND {IS_MEMBER} ORDER BY")

_STANDING: Final = (
    f"SELECT {IS_MEMBER}, last_seq, version FROM (SELECT) AS one LEFT JOIN heads ON conversation_id = %(id)s"
)

# The newest of each never leaves the warm tier, so what is above it is not applied yet.
_NEWEST_SEQ: Final = "SELECT max(seq) FROM messages WHERE conversation_id = %(id)s"
_NEWEST_VERSION: Final = "SELECT max(version) FROM changes WHERE conversation_id = %(id)s"

_RECEIPT: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages
    WHERE conversation_id = %(id)s AND sender_id = %(sender)s AND client_msg_id = %(client)s
    ORDER BY seq LIMIT 1"""
# Whether the conversation is older than the newest month that was moved: then the warm tier cannot deny.
_HAS_MOVED: Final = """
    SELECT EXISTS (SELECT FROM tier_moves WHERE model = 'messages' AND month_end > coalesce(
        (SELECT created_at FROM conversations WHERE conversation_id = %(id)s), '-infinity'))"""

_ANY_MOVED: Final = "SELECT EXISTS (SELECT FROM tier_moves)"

_from_json = msgspec.json.decode

P = TypeVar("P")

_Ask: TypeAlias = Callable[[int, Sequence[int]], Awaitable[Mapping[int, Row]]]


class Tiered(NamedTuple, Generic[P]):
    """What was read, and which tiers it is from, the fastest first."""

    page: P
    tiers: tuple[str, ...]


class History:
    """Reads conversations through the tiers, for one deployment.

    Args:
        cold: without one, nothing has left the warm tier.
        hot: without one, everything is read from the others.

    All methods raise `Unavailable` when Postgres does not answer, or when the cold tier does not and is needed.
    """

    def __init__(self, database: Database, cold: Cold | None = None, hot: HotStore | None = None) -> None:
        self._database = database
        self._cold = cold
        self._hot = hot

    async def newest_messages(
        self,
        conversation_id: int,
        user_id: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        min_version: int,
    ) -> Tiered[MessagesPage] | None:
        """As `messages`, if the hot tier has the whole page, and is at a version; it never fails."""
        if self._hot is None:
            return None
        tail = await self._hot.tail(conversation_id, user_id, fill=before is None and after is None)
        if tail is None or (min_version and tail.version < min_version):
            return None
        owed, more = _owed(tail.last, before=before, after=after, limit=limit)
        if owed and owed.start < tail.first:
            return None
        return Tiered(MessagesPage(tail.messages(owed), more), (HOT,))

    async def messages(
        self, conversation_id: int, user_id: str, *, before: int | None, after: int | None, limit: int
    ) -> Tiered[MessagesPage]:
        """Messages next to a seq, the nearest first to be taken; the newest when neither side is given.

        Raises:
            NotFound: the user is not a member.
        """
        upward = after is not None
        ceiling = _SEQ_MAX if before is None else before
        values = {"id": conversation_id, "user": user_id, "after": after or 0, "before": ceiling, "limit": limit + 1}
        rows = await self._database.rows(_MESSAGES_UP if upward else _MESSAGES_DOWN, values)
        last = rows[0][-1] if rows else (await self._standing(conversation_id, user_id)).last_seq
        taken: Sequence[Row]
        tiers: tuple[str, ...]
        if self._cold is None:
            taken, more, tiers = rows[:limit] if upward else rows[:limit][::-1], len(rows) > limit, (WARM,)
        else:
            found = {row[1]: row for row in rows}
            owed, more = _owed(max(last or 0, *found, 0), before=before, after=after, limit=limit)
            taken, tiers = await self._filled(conversation_id, found, owed, self._cold.messages, _NEWEST_SEQ)
        messages = [message_of(str(conversation_id), row[:9]) for row in taken]
        return Tiered(MessagesPage(messages, more), tiers)

    async def events(self, conversation_id: int, user_id: str | None, *, after: int, limit: int) -> Tiered[EventsPage]:
        """Every public event after a version, in order: encoded, the bytes that were pushed.

        Args:
            user_id: whose membership is asked for; `None` reads on nobody's behalf.

        Raises:
            NotFound: the user is not a member.
        """
        values = {"id": conversation_id, "user": user_id, "after": after, "limit": limit + 1}
        rows = await self._database.rows(_EVENTS_AFTER if user_id is None else _EVENTS, values)
        last = rows[0][-1] if rows else (await self._standing(conversation_id, user_id)).version
        taken: Sequence[Row]
        tiers: tuple[str, ...]
        if self._cold is None:
            taken, more, tiers = rows[:limit], len(rows) > limit, (WARM,)
        else:
            found = {row[1]: row for row in rows}
            highest = max(last or 0, *found, 0)
            owed = range(after + 1, min(after + limit, highest) + 1)
            more = owed.stop <= highest
            taken, tiers = await self._filled(conversation_id, found, owed, self._cold.events, _NEWEST_VERSION)
        id_ = str(conversation_id)
        events = [
            StoredEvent(type_, id_, version, rfc3339(occurred_at), actor_id, msgspec.Raw(data))
            for type_, version, occurred_at, actor_id, data, *_ in taken
        ]
        return Tiered(EventsPage(events, more), tiers)

    async def receipt(self, conversation_id: int, sender_id: str, client_msg_id: str) -> Receipt | None:
        """The receipt of a message; `None` if it was never posted, as far as the read models have come."""
        values = {"id": conversation_id, "sender": sender_id, "client": client_msg_id}
        rows = await self._database.rows(_RECEIPT, values)
        row = rows[0] if rows else None
        if row is None and self._cold is not None and (await self._database.rows(_HAS_MOVED, values))[0][0]:
            row = await self._cold.message_sent(conversation_id, sender_id, client_msg_id)
        if row is None:
            return None
        message_id, seq, version, _, _, created_at, body, reply_to, mentions = row
        digest = content_digest(_from_json(body), reply_to, _from_json(mentions))
        return Receipt(message_id, seq, version, created_at, digest)

    async def _has_moved(self) -> bool:
        """Whether anything has ever left the warm tier."""
        return bool((await self._database.rows(_ANY_MOVED, {}))[0][0])

    async def _standing(self, conversation_id: int, user_id: str | None) -> "_Standing":
        """The last numbers of a conversation of which nothing was found. That may mean a stranger."""
        rows = await self._database.rows(_STANDING, {"id": conversation_id, "user": user_id})
        standing = _Standing(*rows[0])
        if user_id is not None and not standing.is_member:
            raise no_such_conversation()
        return standing

    async def _filled(
        self, conversation_id: int, found: Mapping[int, Row], owed: range, ask: _Ask, newest: str
    ) -> tuple[list[Row], tuple[str, ...]]:
        """The rows of the numbers owed, the missing ones from the cold tier."""
        missing = [number for number in owed if number not in found]
        if not missing:
            return [found[number] for number in owed], (WARM,)
        try:
            cold = await ask(conversation_id, missing)
        except Unavailable:
            if await self._has_moved():
                raise
            # Not of the cold tier, but an event that a projection passed over (`projections.dead`).
            return [found[number] for number in owed if number in found], (WARM,)
        lost = [number for number in missing if number not in cold]
        end = owed.stop
        if lost:
            ((applied,),) = await self._database.rows(newest, {"id": conversation_id})
            if lost[0] <= (applied or 0):
                raise Unavailable(f"number {lost[0]} of this conversation cannot be read from any tier; try again")
            end = lost[0]  # the head is ahead of the rows: what comes after them is not applied yet
        rows = [found[number] if number in found else cold[number] for number in range(owed.start, end)]
        return rows, tuple(tier for tier, has in ((WARM, len(rows) > len(cold)), (COLD, bool(cold))) if has) or (WARM,)


def _owed(last: int, *, before: int | None, after: int | None, limit: int) -> tuple[range, bool]:
    """The seqs of a page, when those of the conversation end at one; and whether there are more in its direction."""
    highest = last if before is None else min(before - 1, last)
    if after is not None:
        owed = range(after + 1, min(after + limit, highest) + 1)
        return owed, owed.stop <= highest
    owed = range(max(1, highest - limit + 1), highest + 1)
    return owed, owed.start > 1


class _Standing(NamedTuple):
    is_member: bool
    last_seq: int | None
    version: int | None
