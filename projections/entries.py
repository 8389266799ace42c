"""What an entry of an inbox is made of: the head that all members share, and what is the user's own.

The same parts are read from Postgres here, kept in the hot store packed, and put together to entries here.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from projections.pages import InboxEntry
from projections.reading import Row, Snapshot
from streams.public import Message, rfc3339

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# An entry is ordered by milliseconds, which is what events have.
UPDATED_AT_MS = "(extract(epoch FROM h.updated_at) * 1000)::int8"

OWN_COLUMNS = """m.joined_seq, greatest(m.posted_seq, r.read_seq), (extract(epoch FROM s.muted_until) * 1000)::int8,
        coalesce(s.pinned, false), coalesce(s.hidden, false)"""

# All that is one user's, each taken by the index that begins with the user, whatever the rest of the statement asks
# for: for the order of an inbox the planner would rather walk through everybody's memberships.
MINE = """
    WITH mine AS MATERIALIZED (SELECT * FROM members WHERE user_id = %(user)s),
    my_markers AS MATERIALIZED (SELECT conversation_id, read_seq, sequence FROM markers WHERE user_id = %(user)s),
    my_settings AS MATERIALIZED (SELECT * FROM own_settings WHERE user_id = %(user)s)"""
MY_JOINS = """LEFT JOIN my_markers r ON r.conversation_id = m.conversation_id
        LEFT JOIN my_settings s ON s.conversation_id = m.conversation_id"""

_OWN = f"{MINE} SELECT m.conversation_id, {OWN_COLUMNS} FROM mine m {MY_JOINS}"

_OWN_OF_PAIRS = f"""
    SELECT m.user_id, m.conversation_id, {OWN_COLUMNS}
    FROM unnest(%(users)s::text[], %(ids)s::int8[]) AS asked (user_id, conversation_id)
        JOIN members m ON m.conversation_id = asked.conversation_id AND m.user_id = asked.user_id COLLATE "C"
        LEFT JOIN markers r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
        LEFT JOIN own_settings s ON s.user_id = m.user_id AND s.conversation_id = m.conversation_id"""

_RANKS = f"SELECT h.conversation_id, {UPDATED_AT_MS} FROM heads h WHERE h.conversation_id = ANY(%(ids)s)"

# The time of the last message names the month it lies in: one look-up, however many months there are.
_HEADS = f"""
    SELECT h.conversation_id, c.kind, c.name, CASE WHEN c.kind = 'direct' THEN ARRAY(
            SELECT user_id FROM members WHERE conversation_id = h.conversation_id ORDER BY user_id) END,
        h.version, h.sequence, {UPDATED_AT_MS}, h.last_seq, l.message_id, l.seq, l.version, l.sender_id,
        l.client_msg_id, l.created_at, l.body, l.reply_to, l.mentions
    FROM unnest(%(ids)s::int8[]) AS asked (conversation_id)
        JOIN heads h ON h.conversation_id = asked.conversation_id
        JOIN conversations c ON c.conversation_id = asked.conversation_id
        LEFT JOIN LATERAL (
            SELECT * FROM messages WHERE conversation_id = h.conversation_id AND seq = h.last_seq
            AND created_at = h.last_message_at) l ON true"""

_from_json = msgspec.json.decode
_to_json = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Where a conversation stands, as an inbox shows it to whoever is in it.

    Attributes:
        pair: the two of a direct conversation; empty in others.
        last_message: a `streams.public.Message`, as JSON.
    """

    kind: str
    name: str | None
    pair: list[str]
    version: int
    sequence: int
    updated_at_ms: int
    last_seq: int
    last_message: bytes | None


class Own(msgspec.Struct, frozen=True, array_like=True):
    """What a member's entry has that is not the others'. `read_seq`: by marker or by posting."""

    joined_seq: int
    read_seq: int
    muted_until_ms: int | None
    pinned: bool
    hidden: bool


async def read_heads(snapshot: Snapshot, conversation_ids: Iterable[int]) -> dict[int, Head]:
    """The heads of conversations, as far as there are any."""
    rows = await snapshot.rows(_HEADS, {"ids": list(conversation_ids)})
    return {row[0]: _head(row) for row in rows}


async def read_ranks(snapshot: Snapshot, conversation_ids: Iterable[int]) -> dict[int, int]:
    """When conversations were updated, in Unix milliseconds: what an inbox is ordered by."""
    return dict(await snapshot.rows(_RANKS, {"ids": list(conversation_ids)}))


async def read_own(snapshot: Snapshot, user_id: str) -> dict[int, Own]:
    """A user's own part of all conversations they are in."""
    return {row[0]: Own(*row[1:]) for row in await snapshot.rows(_OWN, {"user": user_id})}


async def read_own_of_pairs(snapshot: Snapshot, pairs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Own]:
    """The own parts of pairs of user and conversation; those who are not members have none."""
    asked = list(pairs)
    values = {"users": [user_id for user_id, _ in asked], "ids": [id_ for _, id_ in asked]}
    return {(row[0], row[1]): Own(*row[2:]) for row in await snapshot.rows(_OWN_OF_PAIRS, values)}


def inbox_entry(conversation_id: int, head: Head, own: Own, user_id: str, now_ms: int) -> InboxEntry:
    """An entry of a user's inbox at a time."""
    return InboxEntry(**entry_fields(conversation_id, head, own, user_id, now_ms))


def entry_fields(conversation_id: int, head: Head, own: Own, user_id: str, now_ms: int) -> dict[str, Any]:
    """The fields of an `InboxEntry`."""
    muted_until_ms = own.muted_until_ms
    return {
        "conversation_id": str(conversation_id),
        "kind": head.kind,
        "name": head.name,
        "peer_id": next((user for user in head.pair if user != user_id), None),
        "version": head.version,
        "last_seq": head.last_seq,
        "joined_seq": own.joined_seq,
        "read_seq": own.read_seq,
        "unread": max(0, head.last_seq - max(own.read_seq, own.joined_seq - 1)),
        "last_message": None if head.last_message is None else msgspec.Raw(head.last_message),
        "updated_at": _time(head.updated_at_ms),
        "muted": muted_until_ms is not None and muted_until_ms > now_ms,
        "muted_until": None if muted_until_ms is None else _time(muted_until_ms),
        "pinned": own.pinned,
        "hidden": own.hidden,
    }


# Of a row of `messages`, as `message_of` takes it.
MESSAGE_COLUMNS = "message_id, seq, version, sender_id, client_msg_id, created_at, body, reply_to, mentions"


def message_of(conversation_id: str, row: Sequence[Any]) -> Message:
    """A message of the row `MESSAGE_COLUMNS`."""
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


def _head(row: Row) -> Head:
    id_, kind, name, pair, version, sequence, updated_at_ms, last_seq, *message = row
    last_message = None if message[0] is None else _to_json(message_of(str(id_), message))
    return Head(kind, name, pair or [], version, sequence, updated_at_ms, last_seq, last_message)


def _time(ms: int) -> str:
    return rfc3339(_EPOCH + timedelta(milliseconds=ms))
