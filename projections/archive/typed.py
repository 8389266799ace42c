"""The typed tables: what of each event analysts ask for, in columns. `migrations/clickhouse` has the tables themselves.

A table is a set of columns and what makes rows of an event. A new one is one more entry of `TABLES`, and a migration.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from domain import events
from domain.events import Event

Row: TypeAlias = tuple[Any, ...]
MakeRows: TypeAlias = Callable[[Any], Iterable[Row]]

PLACE: Final = ("stream", "sequence")  # the last columns of every table: where its event is

_to_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class TypedTable:
    """Args:
    columns: of the rows, in order, but for those of `PLACE`.
    rows: makes the rows of an event, by the event's class.
    """

    name: str
    columns: Sequence[str]
    rows: Mapping[type[Event], MakeRows]


def text_body(text: str) -> dict[str, Any]:
    """The body of a text message, of which only the text is stored."""
    return {"type": "text", "text": text}


def _message(event: events.MessagePosted) -> Iterable[Row]:
    text = event.body.get("text") if event.body.get("type") == "text" else None
    plain = isinstance(text, str) and len(event.body) == 2 and next(iter(event.body)) == "type"  # as `text_body`
    yield (
        int(event.originator_id),
        event.seq,
        event.originator_version,
        event.message_id,
        event.actor_id,
        event.client_msg_id,
        event.timestamp,
        text if isinstance(text, str) else "",
        "" if plain else _to_json(event.body).decode(),
        event.reply_to or 0,
        event.mentions,
    )


def _created(event: events.ConversationCreated) -> Iterable[Row]:
    yield (
        *(int(event.originator_id), event.originator_version, event.timestamp, "created", event.actor_id, event.kind),
        *(event.name or "", _to_json(event.settings).decode(), len(event.members)),
    )


def _updated(event: events.ConversationUpdated) -> Iterable[Row]:
    yield (
        *(int(event.originator_id), event.originator_version, event.timestamp, "updated", event.actor_id, ""),
        *(event.name or "", _to_json(event.settings).decode(), 0),
    )


def _first_members(event: events.ConversationCreated) -> Iterable[Row]:
    for user_id, role in event.members.items():
        yield _membership(event, user_id, "joined", role, 1)


def _membership(event: Event, user_id: str, change: str, role: str, joined_seq: int) -> Row:
    return (
        *(int(event.originator_id), event.originator_version, event.timestamp),
        *(user_id, change, role, joined_seq, event.actor_id),
    )


TABLES: Final[Sequence[TypedTable]] = (
    TypedTable(
        "messages",
        (
            *("conversation_id", "seq", "version", "message_id", "sender_id", "client_msg_id", "created_at"),
            *("text", "body", "reply_to", "mentions"),
        ),
        {events.MessagePosted: _message},
    ),
    TypedTable(
        "conversations",
        (
            *("conversation_id", "version", "occurred_at", "change", "actor_id", "kind"),
            *("name", "settings", "members"),
        ),
        {events.ConversationCreated: _created, events.ConversationUpdated: _updated},
    ),
    TypedTable(
        "memberships",
        ("conversation_id", "version", "occurred_at", "user_id", "change", "role", "joined_seq", "actor_id"),
        {
            events.ConversationCreated: _first_members,
            events.MemberAdded: lambda e: [_membership(e, e.user_id, "joined", e.role, e.joined_seq)],
            events.MemberRemoved: lambda e: [_membership(e, e.user_id, "left", "", 0)],
            events.MemberUpdated: lambda e: [_membership(e, e.user_id, "role", e.role, 0)],
        },
    ),
    TypedTable(
        "reads",
        ("user_id", "conversation_id", "seq", "occurred_at"),
        {events.ReadMoved: lambda e: [(e.actor_id, e.conversation_id, e.seq, e.timestamp)]},
    ),
    TypedTable(
        "own_settings",
        ("user_id", "conversation_id", "occurred_at", "muted_until", "pinned", "hidden"),
        {
            events.SettingsUpdated: lambda e: [
                (e.actor_id, e.conversation_id, e.timestamp, e.muted_until, e.pinned, e.hidden)
            ]
        },
    ),
    TypedTable(
        "profiles",
        ("user_id", "version", "occurred_at", "display_name", "avatar_url", "attributes"),
        {
            events.ProfileUpdated: lambda e: [
                (
                    *(e.originator_id, e.originator_version, e.timestamp),
                    *(e.display_name or "", e.avatar_url or "", e.attributes),
                )
            ]
        },
    ),
    TypedTable(
        "devices",
        ("user_id", "device_id", "version", "occurred_at", "change", "kind"),
        {
            events.DeviceRegistered: lambda e: [
                (e.originator_id, e.device_id, e.originator_version, e.timestamp, "registered", e.kind)
            ],
            events.DeviceRevoked: lambda e: [
                (e.originator_id, e.device_id, e.originator_version, e.timestamp, "revoked", "")
            ],
        },
    ),
    TypedTable(
        "blocks",
        ("user_id", "blocked_id", "version", "occurred_at", "blocked"),
        {
            events.UserBlocked: lambda e: [(e.originator_id, e.user_id, e.originator_version, e.timestamp, True)],
            events.UserUnblocked: lambda e: [(e.originator_id, e.user_id, e.originator_version, e.timestamp, False)],
        },
    ),
)

# What makes rows of the events of a class, with the names of their tables.
MAKERS: Final[Mapping[type[Event], Sequence[tuple[str, MakeRows]]]] = {
    kind: [(table.name, table.rows[kind]) for table in TABLES if kind in table.rows]
    for kind in {kind for table in TABLES for kind in table.rows}
}
