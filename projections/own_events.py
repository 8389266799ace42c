"""A user's own events, rebuilt from what the read models hold.

What such an event says is the whole new state, so of several about the same thing only the newest counts, and that is
what stands in the tables.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.reading import Row, Snapshot
from streams.public import UserEvent, rfc3339

_OF_USER = "user_id = %(user)s AND sequence > %(after)s"
# The last four columns are the fields of the event's data, by type.
_NEWER = f"""
    SELECT sequence, 'read.moved' AS type, conversation_id, read_at AS occurred_at, read_seq::text AS a,
        NULL::text AS b, NULL::text AS c, NULL::timestamptz AS moment
    FROM markers WHERE {_OF_USER}
    UNION ALL
    SELECT sequence, 'settings.updated', conversation_id, occurred_at, pinned::text, hidden::text, NULL, muted_until
    FROM own_settings WHERE {_OF_USER}
    UNION ALL
    SELECT profile_sequence, 'profile.updated', NULL, profile_at, display_name, avatar_url, attributes, NULL
    FROM users WHERE user_id = %(user)s AND profile_sequence > %(after)s
    UNION ALL
    SELECT sequence, CASE WHEN revoked_at >= registered_at THEN 'device.revoked' ELSE 'device.registered' END, NULL,
        greatest(registered_at, revoked_at), device_id, kind, NULL, NULL
    FROM devices WHERE {_OF_USER}
    UNION ALL
    SELECT sequence, CASE WHEN blocked THEN 'user.blocked' ELSE 'user.unblocked' END, NULL, changed_at, blocked_id,
        NULL, NULL, NULL
    FROM blocks WHERE {_OF_USER}
    ORDER BY sequence LIMIT %(limit)s"""


_OF_ASKED = _NEWER.replace("%(user)s", 'asked.user_id COLLATE "C"').replace("%(after)s", "asked.after")
_NEWER_OF_MANY = f"""
    SELECT asked.number, asked.user_id, newer.*
    FROM unnest(%(users)s::text[], %(afters)s::int8[]) WITH ORDINALITY AS asked (user_id, after, number)
        CROSS JOIN LATERAL ({_OF_ASKED}) newer"""


async def read_own_events(snapshot: Snapshot, user_id: str, *, after: int, limit: int | None = None) -> list[UserEvent]:
    """A user's own events newer than a sequence of their partition, in order, `limit` at most."""
    rows = await snapshot.rows(_NEWER, {"user": user_id, "after": after, "limit": limit})
    return [_event(user_id, row) for row in rows]


async def read_own_events_of_many(
    snapshot: Snapshot, asked: Sequence[tuple[str, int]], *, limit: int
) -> list[list[UserEvent]]:
    """The same for many users, each after a sequence of their own; in the order asked."""
    users, afters = [user_id for user_id, _ in asked], [after for _, after in asked]
    events: list[list[UserEvent]] = [[] for _ in asked]
    for number, user_id, *row in await snapshot.rows(
        _NEWER_OF_MANY, {"users": users, "afters": afters, "limit": limit}
    ):
        events[number - 1].append(_event(user_id, tuple(row)))
    return events


def _event(user_id: str, row: Row) -> UserEvent:
    _, type_, conversation_id, occurred_at, *values = row
    return UserEvent(
        type=type_,
        conversation_id=msgspec.UNSET if conversation_id is None else str(conversation_id),
        occurred_at=rfc3339(occurred_at),
        actor_id=user_id,
        data=_data(type_, values),
    )


def _data(type_: str, values: list[Any]) -> dict[str, Any]:
    a, b, c, moment = values
    match type_:
        case "read.moved":
            return {"seq": int(a)}
        case "settings.updated":
            muted_until = None if moment is None else rfc3339(moment)
            return {"muted_until": muted_until, "pinned": a == "true", "hidden": b == "true"}
        case "profile.updated":
            return {"display_name": a, "avatar_url": b, "attributes": msgspec.json.decode(c)}
        case "device.registered":
            return {"device_id": a, "kind": b}
        case "device.revoked":
            return {"device_id": a}
        case _:
            return {"user_id": a}
