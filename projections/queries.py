"""The queries: everything that is read, from the read models and nothing else.

Each is authorised by membership in the statement that reads, and a stranger learns nothing: whether a conversation
does not exist or is not theirs, the answer is `NotFound`, after the same time.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound, Unavailable
from domain.ids import partition_of, slot_of
from domain.messages import Receipt, content_digest
from projections.pages import EventsPage, Membership, MembersPage, MemberView, MessagesPage, StoredEvent
from projections.progress import Progress
from streams.public import ConversationView, Message, rfc3339

POOL_S = 1.0  # without a connection by then, Postgres counts as down
STATEMENT_S = 5.0  # a page takes milliseconds
POLL_FIRST_S, POLL_MAX_S = 0.005, 0.050  # for workers of other processes, which cannot ring

Row = tuple[Any, ...]

_READ_MODELS = ["conversations", "heads", "messages"]  # the projections whose tables are read here

_IS_MEMBER = "EXISTS (SELECT FROM members WHERE conversation_id = %(id)s AND user_id = %(user)s)"

_SELECT_IS_MEMBER = f"SELECT {_IS_MEMBER}"

# Whether the user is a member, and whether all read models have applied the version.
_REACHED = f"""
    SELECT {_IS_MEMBER},
        (SELECT count(*) = cardinality(%(models)s::text[]) AND min(sequence) >= (
            SELECT sequence FROM changes WHERE conversation_id = %(id)s AND version >= %(version)s
            ORDER BY version LIMIT 1)
         FROM checkpoints WHERE partition = %(partition)s AND projection = ANY(%(models)s))"""

# Of the two projections that feed it, the one that is ahead says the version.
_CONVERSATION = """
    SELECT c.kind, c.name, c.settings, c.created_by, c.created_at, greatest(h.updated_at, c.updated_at),
        greatest(h.version, c.version), coalesce(h.last_seq, 0), c.member_count
    FROM members m JOIN conversations c USING (conversation_id) LEFT JOIN heads h USING (conversation_id)
    WHERE m.conversation_id = %(id)s AND m.user_id = %(user)s"""

_MEMBERS = f"""
    SELECT user_id, role, joined_seq, joined_at FROM members
    WHERE conversation_id = %(id)s AND user_id > %(after)s AND {_IS_MEMBER}
    ORDER BY user_id LIMIT %(limit)s"""

_MESSAGES = f"""
    SELECT message_id, seq, version, sender_id, client_msg_id, created_at, body, reply_to, mentions FROM messages
    WHERE conversation_id = %(id)s AND seq > %(after)s AND seq < %(before)s AND {_IS_MEMBER}
    ORDER BY seq {{direction}} LIMIT %(limit)s"""
_MESSAGES_UP, _MESSAGES_DOWN = _MESSAGES.format(direction="ASC"), _MESSAGES.format(direction="DESC")

_EVENTS = f"""
    SELECT type, version, occurred_at, actor_id, data FROM changes
    WHERE conversation_id = %(id)s AND version > %(after)s AND {_IS_MEMBER}
    ORDER BY version LIMIT %(limit)s"""

_EVENTS_AFTER = """
    SELECT type, version, occurred_at, actor_id, data FROM changes
    WHERE conversation_id = %(id)s AND version > %(after)s
    ORDER BY version LIMIT %(limit)s"""

# One statement, one snapshot: what is not in `changes` yet is published after the version told here. Nor is a version
# told that `members` has not come to: the event that ends a membership always comes after it.
_MEMBERSHIPS = """
    SELECT m.conversation_id, coalesce(newest.version, 0) FROM members m LEFT JOIN LATERAL (
        SELECT version FROM changes WHERE conversation_id = m.conversation_id AND sequence <= (
            SELECT sequence FROM checkpoints WHERE projection = 'conversations'
            AND partition = ((m.conversation_id >> 12) & 1023) %% %(partitions)s)
        ORDER BY version DESC LIMIT 1
    ) newest ON true WHERE m.user_id = %(user)s"""

_NEWEST_VERSIONS = """
    SELECT asked.id, newest.version FROM unnest(%(ids)s::bigint[]) AS asked(id) JOIN LATERAL (
        SELECT version FROM changes WHERE conversation_id = asked.id ORDER BY version DESC LIMIT 1
    ) newest ON true"""

_RECEIPT = """
    SELECT message_id, seq, version, created_at, body, reply_to, mentions FROM messages
    WHERE conversation_id = %(id)s AND sender_id = %(sender)s AND client_msg_id = %(client)s
    ORDER BY seq LIMIT 1"""

_POSITIONS = """
    SELECT partition, min(sequence) FROM checkpoints WHERE projection = ANY(%(models)s)
    GROUP BY partition HAVING count(*) = cardinality(%(models)s::text[])"""

_SEQ_MAX = (1 << 63) - 1
_from_json = msgspec.json.decode


class Queries:
    """Reads for one deployment.

    Args:
        pool: opened and closed by its maker.
        wait_s: how long a read waits for `min_version`.
        partitions: of the deployment; places a conversation's checkpoints.
        progress: rung by the workers of this process, if it has any.

    All methods raise `Unavailable` when Postgres does not answer; those about a conversation raise `NotFound` for
    who is not a member, and `Unavailable` when the read models do not reach `min_version` in time.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        *,
        wait_s: float = 2.0,
        partitions: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self._pool = pool
        self._wait_s = wait_s
        self._partitions = partitions
        self._progress = progress or Progress()

    async def conversation(self, conversation_id: int, user_id: str, *, min_version: int = 0) -> ConversationView:
        """A conversation, at the newest version applied."""
        await self._reach(conversation_id, user_id, min_version)
        rows = await self._rows(_CONVERSATION, {"id": conversation_id, "user": user_id})
        if not rows:
            raise _no_such_conversation()
        kind, name, settings, created_by, created_at, updated_at, version, last_seq, member_count = rows[0]
        return ConversationView(
            conversation_id=str(conversation_id),
            kind=kind,
            name=name,
            settings=_from_json(settings),
            created_by=created_by,
            created_at=rfc3339(created_at),
            updated_at=rfc3339(updated_at),
            version=version,
            last_seq=last_seq,
            member_count=member_count,
        )

    async def members_page(
        self, conversation_id: int, user_id: str, *, after: str | None, limit: int, min_version: int = 0
    ) -> MembersPage:
        """Members in the order of their ids, from after one of them."""
        await self._reach(conversation_id, user_id, min_version)
        rows = await self._page(_MEMBERS, conversation_id, user_id, limit, after=after or "")
        members = [MemberView(user, role, seq, rfc3339(joined_at)) for user, role, seq, joined_at in rows[:limit]]
        return MembersPage(members, len(rows) > limit)

    async def messages_page(
        self,
        conversation_id: int,
        user_id: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        min_version: int = 0,
    ) -> MessagesPage:
        """Messages next to a seq, the nearest first to be taken; the newest when neither side is given."""
        await self._reach(conversation_id, user_id, min_version)
        upward = after is not None
        rows = await self._page(
            _MESSAGES_UP if upward else _MESSAGES_DOWN,
            conversation_id,
            user_id,
            limit,
            after=after or 0,
            before=_SEQ_MAX if before is None else before,
        )
        page = rows[:limit] if upward else rows[:limit][::-1]
        return MessagesPage([_message(str(conversation_id), row) for row in page], len(rows) > limit)

    async def events_page(
        self, conversation_id: int, user_id: str, *, after: int, limit: int, min_version: int = 0
    ) -> EventsPage:
        """Every public event after a version, in order: encoded, the bytes that were pushed."""
        await self._reach(conversation_id, user_id, min_version)
        rows = await self._page(_EVENTS, conversation_id, user_id, limit, after=after)
        return _events_page(conversation_id, rows, limit)

    async def events_after(self, conversation_id: int, *, after: int, limit: int, min_version: int = 0) -> EventsPage:
        """As `events_page`, not authorised: for the gateway, which reads on behalf of all its sessions at once and
        lets the events say who is a member."""
        await self._reach(conversation_id, None, min_version)
        rows = await self._rows(_EVENTS_AFTER, {"id": conversation_id, "after": after, "limit": limit + 1})
        return _events_page(conversation_id, rows, limit)

    async def memberships(self, user_id: str) -> list[Membership]:
        """All conversations of a user, each with a version up to which `events_page` has its events, and at which
        they were a member."""
        rows = await self._rows(_MEMBERSHIPS, {"user": user_id, "partitions": self._partitions})
        return [Membership(*row) for row in rows]

    async def newest_versions(self, conversation_ids: Sequence[int]) -> dict[int, int]:
        """The newest version of each conversation of which events can be read. Not authorised: for the gateway."""
        return dict(await self._rows(_NEWEST_VERSIONS, {"ids": list(conversation_ids)}))

    async def is_member(self, conversation_id: int, user_id: str) -> bool:
        """Whether a user is in a conversation, as far as the read model has come."""
        return bool((await self._rows(_SELECT_IS_MEMBER, {"id": conversation_id, "user": user_id}))[0][0])

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        """The receipt of a message; `None` if none was posted up to `min_version`."""
        await self._reach(conversation_id, None, min_version)
        rows = await self._rows(_RECEIPT, {"id": conversation_id, "sender": sender_id, "client": client_msg_id})
        if not rows:
            return None
        message_id, seq, version, created_at, body, reply_to, mentions = rows[0]
        digest = content_digest(_from_json(body), reply_to, _from_json(mentions))
        return Receipt(message_id, seq, version, created_at, digest)

    async def positions(self) -> tuple[int, ...]:
        """For each partition the sequence up to which every read model has it; 0 where none has begun."""
        found: dict[int, int] = dict(await self._rows(_POSITIONS, {"models": _READ_MODELS}))
        return tuple(found.get(partition, 0) for partition in range(self._partitions))

    # -- reading --------------------------------------------------------------------------------------------

    async def _page(
        self, statement: str, conversation_id: int, user_id: str, limit: int, **values: object
    ) -> Sequence[Row]:
        """Rows, one more than the page if there are more. Nothing found may mean a stranger: then that is asked."""
        rows = await self._rows(statement, {"id": conversation_id, "user": user_id, "limit": limit + 1, **values})
        if not rows and not await self.is_member(conversation_id, user_id):
            raise _no_such_conversation()
        return rows

    async def _rows(self, statement: str, values: dict[str, Any]) -> Sequence[Row]:
        try:
            async with asyncio.timeout(STATEMENT_S), self._pool.connection(timeout=POOL_S) as connection:
                cursor = await connection.execute(statement, values, prepare=True, binary=True)
                return await cursor.fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
            raise Unavailable("the read models cannot be reached; try again") from error

    async def _reach(self, conversation_id: int, user_id: str | None, min_version: int) -> None:
        """Wait until all read models have applied a version of a conversation, and the user is a member.

        Who is not waits as long whether or not the conversation exists.
        """
        if min_version <= 0:
            return
        values = {
            "id": conversation_id,
            "user": user_id,
            "version": min_version,
            "models": _READ_MODELS,
            "partition": partition_of(slot_of(conversation_id), self._partitions),
        }
        clock = asyncio.get_running_loop().time
        deadline_s, poll_s = clock() + self._wait_s, POLL_FIRST_S
        while True:
            is_member, reached = (await self._rows(_REACHED, values))[0]
            if reached and (is_member or user_id is None):
                return
            left_s = deadline_s - clock()
            if left_s <= 0:
                break
            await self._progress.wait(min(poll_s, left_s))
            poll_s = min(2 * poll_s, POLL_MAX_S)
        if user_id is not None and not is_member:
            raise _no_such_conversation()
        raise Unavailable(f"version {min_version} cannot be read yet; try again")


def _no_such_conversation() -> NotFound:
    return NotFound("there is no such conversation")


def _events_page(conversation_id: int, rows: Sequence[Row], limit: int) -> EventsPage:
    id_ = str(conversation_id)
    events = [
        StoredEvent(type_, id_, version, rfc3339(occurred_at), actor_id, msgspec.Raw(data))
        for type_, version, occurred_at, actor_id, data in rows[:limit]
    ]
    return EventsPage(events, len(rows) > limit)


def _message(conversation_id: str, row: Row) -> Message:
    message_id, seq, version, sender_id, client_msg_id, created_at, body, reply_to, mentions = row
    return Message(
        message_id=str(message_id),
        conversation_id=conversation_id,
        seq=seq,
        version=version,
        sender_id=sender_id,
        client_msg_id=client_msg_id,
        created_at=rfc3339(created_at),
        body=_from_json(body),
        reply_to=None if reply_to is None else str(reply_to),
        mentions=_from_json(mentions),
    )
