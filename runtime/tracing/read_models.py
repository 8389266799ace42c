"""What Postgres says about a message, its conversation and its members, in one snapshot; and what is in `DEAD`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import psycopg

from runtime.tracing.facts import MemberFact, ProjectionFact, ReadModels, Stay
from runtime.tracing.locate import Found
from streams import subjects
from streams.ports import Log

PROJECTIONS: Final = ("conversations", "heads", "messages")
CONNECT_S: Final = 5

_SEQUENCE = "SELECT sequence FROM messages WHERE conversation_id = %s AND seq = %s"
_CHECKPOINTS = "SELECT projection, sequence FROM checkpoints WHERE partition = %s AND projection = ANY(%s)"
# What has left with its month was there, the same as in the archive.
_HAS_LEFT = "EXISTS (SELECT FROM tier_moves WHERE model = '{model}' AND month_start <= %(at)s AND month_end > %(at)s)"
_ROWS = f"""
    SELECT EXISTS (SELECT FROM messages WHERE (conversation_id, seq, created_at) = (%(id)s, %(seq)s, %(at)s))
            OR {_HAS_LEFT.format(model="messages")},
        EXISTS (SELECT FROM changes WHERE (conversation_id, version, occurred_at) = (%(id)s, %(version)s, %(at)s))
            OR {_HAS_LEFT.format(model="changes")}"""
_CONVERSATION = "SELECT kind, member_count, version FROM conversations WHERE conversation_id = %(id)s"

# Those who are members now, and those who have left since; or the users asked for, whatever they are.
_MEMBERS = """
    SELECT user_id FROM (
        SELECT user_id FROM members WHERE conversation_id = %(id)s
        UNION SELECT user_id FROM departures WHERE conversation_id = %(id)s
            AND joined_version <= %(version)s AND left_version > %(version)s
    ) AS concerned ORDER BY user_id <> %(sender)s, user_id LIMIT %(most)s"""
_STAYS = """
    SELECT asked.user_id, m.joined_version, m.joined_at, d.joined_version, d.left_version,
        (SELECT occurred_at FROM changes WHERE conversation_id = %(id)s AND version = d.left_version),
        greatest(coalesce(r.read_seq, 0), coalesce(m.posted_seq, 0)), r.read_at,
        coalesce(s.muted_until > now(), false), coalesce(s.hidden, false)
    FROM unnest(%(users)s::text[]) WITH ORDINALITY AS asked (user_id, place)
        LEFT JOIN members m ON m.conversation_id = %(id)s AND m.user_id = asked.user_id
        LEFT JOIN departures d ON d.conversation_id = %(id)s AND d.user_id = asked.user_id
        LEFT JOIN markers r ON r.conversation_id = %(id)s AND r.user_id = asked.user_id
        LEFT JOIN own_settings s ON s.conversation_id = %(id)s AND s.user_id = asked.user_id
    ORDER BY place"""
_BLOCKS = """
    SELECT user_id, changed_at FROM blocks WHERE blocked AND (user_id, blocked_id) IN (
        (%(one)s, %(other)s), (%(other)s, %(one)s)) ORDER BY changed_at LIMIT 1"""

Connection = psycopg.AsyncConnection[Any]


async def connect(postgres_url: str) -> Connection:
    """A connection whose statements see one moment, and can change nothing.

    Raises:
        psycopg.Error.
    """
    connection = await psycopg.AsyncConnection.connect(postgres_url, connect_timeout=CONNECT_S)
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
    return connection


async def sequence_of(connection: Connection, conversation_id: int, seq: int) -> int | None:
    """Where the log has a message, as the read model says."""
    rows = await _fetch(connection, _SEQUENCE, (conversation_id, seq))
    return int(rows[0][0]) if rows else None


async def read_models(connection: Connection, log: Log, found: Found, end: int) -> ReadModels:
    """How far the projections are, and what they have made of the message."""
    checkpoints = dict(await _fetch(connection, _CHECKPOINTS, (found.partition, list(PROJECTIONS))))
    dead = await _dead(log, found)
    projections = [
        ProjectionFact(name, checkpoints.get(name), end - checkpoints.get(name, 0), dead.get(name))
        for name in PROJECTIONS
    ]
    event = found.event
    values = {
        "id": found.conversation_id,
        "seq": event.seq,
        "version": event.originator_version,
        "at": event.timestamp,
    }
    [(is_stored, is_told)] = await _fetch(connection, _ROWS, values)
    conversation = await _fetch(connection, _CONVERSATION, values)
    kind, members, version = conversation[0] if conversation else (None, 0, 0)
    as_then = bool(conversation) and version <= event.originator_version
    return ReadModels(None, projections, is_stored, is_told, kind, members, as_then)


async def concerned(connection: Connection, found: Found, most: int) -> list[str]:
    """Who is a member now or was one when the message was posted, the sender first."""
    values = {
        "id": found.conversation_id,
        "version": found.event.originator_version,
        "sender": found.event.actor_id,
        "most": most,
    }
    return [row[0] for row in await _fetch(connection, _MEMBERS, values)]


async def members(connection: Connection, found: Found, users: Sequence[str], *, direct: bool) -> list[MemberFact]:
    """What the read models have of users in the conversation, in their order."""
    facts = []
    version, sender = found.event.originator_version, found.event.actor_id
    for row in await _fetch(connection, _STAYS, {"id": found.conversation_id, "users": list(users)}):
        user_id, stayed, (read_seq, read_at, muted, hidden) = row[0], row[1:6], row[6:]
        blocks: list[tuple[str, datetime]] = []
        if direct and user_id != sender:
            blocks = await _fetch(connection, _BLOCKS, {"one": user_id, "other": sender})
        blocker, blocked_at = blocks[0] if blocks else (None, None)
        stay = _stay(version, *stayed)
        facts.append(MemberFact(user_id, stay, read_seq, read_at, muted, hidden, blocker, blocked_at))
    return facts


def _stay(  # noqa: PLR0917  # the columns of `_STAYS`
    version: int,
    joined_version: int | None,
    joined_at: datetime | None,
    stayed_from: int | None,
    left_version: int | None,
    left_at: datetime | None,
) -> Stay:
    """The membership as of a version, of the present one and the newest departure: all that the read models keep."""
    if joined_version is not None and joined_version <= version:
        return Stay(True, joined_version, joined_at)
    if stayed_from is None or left_version is None:
        return Stay(False, joined_version, joined_at)
    if version < stayed_from:
        return Stay(None, joined_version, joined_at, left_version, left_at)  # an earlier stay: only the log knows
    if version < left_version:
        return Stay(True, stayed_from, None, left_version, left_at)
    return Stay(False, joined_version, joined_at, left_version, left_at)


async def _dead(log: Log, found: Found) -> dict[str, str]:
    """Why projections could not apply the event, by projection."""
    place = {subjects.DEAD_STREAM: found.delivery.stream, subjects.DEAD_SEQUENCE: str(found.delivery.sequence)}
    reasons = {}
    for name in PROJECTIONS:
        async for dead in log.read(subjects.DEAD, subject=subjects.dead(name, found.partition)):
            if place.items() <= dead.headers.items():
                reasons[name] = dead.headers.get(subjects.DEAD_ERROR, "")
    return reasons


async def _fetch(connection: Connection, statement: str, values: Any) -> list[Any]:
    # `Any`: rows of many shapes.
    return await (await connection.execute(statement.encode(), values)).fetchall()
