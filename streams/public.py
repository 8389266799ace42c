"""The public forms of what the log holds: what the protocol promises clients.

One author for all readers: the `changes` read model (gap fill) and the gateways (push) give the same bytes,
and a conversation looks the same whether a command or a query answered it.
What is about a user is pushed to that user alone, as an own event. Internal events have no public form.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from domain import events
from domain.conversations import Conversation
from domain.events import Event

_to_json = msgspec.json.Encoder().encode


class PublicEvent(msgspec.Struct, frozen=True):
    """`data` depends on `type`; a client ignores types it does not know."""

    type: str
    conversation_id: str
    version: int
    occurred_at: str
    actor_id: str
    data: dict[str, Any]


class UserEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An own event: of a user, for their sessions only. It has no version: what it says is the whole new state.

    `conversation_id` is left out where there is none; `data` depends on `type`.
    """

    type: str
    conversation_id: str | msgspec.UnsetType = msgspec.UNSET
    occurred_at: str
    actor_id: str
    data: dict[str, Any]


class Message(msgspec.Struct, frozen=True):
    """A message as clients see it. Ids are decimal strings, times RFC 3339 UTC with milliseconds."""

    message_id: str
    conversation_id: str
    seq: int
    version: int
    sender_id: str
    client_msg_id: str
    created_at: str
    body: dict[str, Any]
    reply_to: str | None = None
    mentions: list[str] = []
    edited_at: str | None = None
    recalled_at: str | None = None
    reactions: dict[str, list[str]] = {}


class ConversationView(msgspec.Struct, frozen=True):
    """A conversation as its members see it."""

    conversation_id: str
    kind: str
    name: str | None
    settings: dict[str, Any]
    created_by: str
    created_at: str
    updated_at: str
    version: int
    last_seq: int
    member_count: int


@lru_cache(maxsize=4096)  # the times of one event are written four to six times: ack, push, rows
def rfc3339(moment: datetime) -> str:
    """A time in the protocol's form: `2026-11-23T20:56:00.123Z`."""
    if moment.tzinfo is not UTC:  # as those of events are
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


def to_public(event: Event) -> PublicEvent | None:
    """The public form of a conversation's event; `None` for what is internal or of a user."""
    make_data = _DATA.get(type(event))
    if make_data is None:
        return None
    return PublicEvent(
        type=event.TOPIC,
        conversation_id=event.originator_id,
        version=event.originator_version,
        occurred_at=rfc3339(event.timestamp),
        actor_id=event.actor_id,
        data=make_data(event),
    )


def public_data(event: Event) -> bytes:
    """The `data` of a conversation's event as JSON: the very bytes that are pushed, stored and read again.

    Raises:
        TypeError: the event has no public form.
    """
    if isinstance(event, events.MessagePosted):
        return _to_json(message_of(event))  # what `to_public` gives, without the dict in between
    make_data = _DATA.get(type(event))
    if make_data is None:
        raise TypeError(f"{event.TOPIC} has no public form")
    return _to_json(make_data(event))


def to_own(event: Event) -> UserEvent | None:
    """The public form of a user's own event; `None` for what is internal or of a conversation."""
    make_data = _OWN_DATA.get(type(event))
    if make_data is None:
        return None
    conversation_id = getattr(event, "conversation_id", None)
    return UserEvent(
        type=event.TOPIC,
        conversation_id=msgspec.UNSET if conversation_id is None else str(conversation_id),
        occurred_at=rfc3339(event.timestamp),
        actor_id=event.actor_id,
        data=make_data(event),
    )


def message_of(event: events.MessagePosted) -> Message:
    """The message an event posted, as it was then."""
    return Message(
        message_id=str(event.message_id),
        conversation_id=event.originator_id,
        seq=event.seq,
        version=event.originator_version,
        sender_id=event.actor_id,
        client_msg_id=event.client_msg_id,
        created_at=rfc3339(event.timestamp),
        body=event.body,
        reply_to=None if event.reply_to is None else str(event.reply_to),
        mentions=event.mentions,
    )


def view_of(conversation: Conversation) -> ConversationView:
    """The public form of a conversation's state."""
    return ConversationView(
        conversation_id=conversation.id,
        kind=conversation.kind,
        name=conversation.name,
        settings=conversation.settings.as_dict(),
        created_by=conversation.created_by,
        created_at=rfc3339(conversation.created_on),
        updated_at=rfc3339(conversation.modified_on),
        version=conversation.version,
        last_seq=conversation.last_seq,
        member_count=len(conversation.members),
    )


def _created(event: events.ConversationCreated) -> dict[str, Any]:
    members = [{"user_id": user_id, "role": role} for user_id, role in event.members.items()]
    return {"kind": event.kind, "name": event.name, "settings": event.settings, "members": members}


def _updated(event: events.ConversationUpdated) -> dict[str, Any]:
    return {"name": event.name, "settings": event.settings}


def _member_added(event: events.MemberAdded) -> dict[str, Any]:
    return {"user_id": event.user_id, "role": event.role, "joined_seq": event.joined_seq}


def _member_removed(event: events.MemberRemoved) -> dict[str, Any]:
    return {"user_id": event.user_id}


def _member_updated(event: events.MemberUpdated) -> dict[str, Any]:
    return {"user_id": event.user_id, "role": event.role}


def _posted(event: events.MessagePosted) -> dict[str, Any]:
    return msgspec.structs.asdict(message_of(event))


_DATA: dict[type[Event], Callable[[Any], dict[str, Any]]] = {
    events.ConversationCreated: _created,
    events.ConversationUpdated: _updated,
    events.MemberAdded: _member_added,
    events.MemberRemoved: _member_removed,
    events.MemberUpdated: _member_updated,
    events.MessagePosted: _posted,
}


def _read(event: events.ReadMoved) -> dict[str, Any]:
    return {"seq": event.seq}


def _own_settings(event: events.SettingsUpdated) -> dict[str, Any]:
    muted_until = None if event.muted_until is None else rfc3339(event.muted_until)
    return {"muted_until": muted_until, "pinned": event.pinned, "hidden": event.hidden}


def _profile(event: events.ProfileUpdated) -> dict[str, Any]:
    return {"display_name": event.display_name, "avatar_url": event.avatar_url, "attributes": event.attributes}


def _device_registered(event: events.DeviceRegistered) -> dict[str, Any]:
    return {"device_id": event.device_id, "kind": event.kind}


def _device_revoked(event: events.DeviceRevoked) -> dict[str, Any]:
    return {"device_id": event.device_id}


def _blocked(event: events.UserBlocked | events.UserUnblocked) -> dict[str, Any]:
    return {"user_id": event.user_id}


_OWN_DATA: dict[type[Event], Callable[[Any], dict[str, Any]]] = {
    events.ReadMoved: _read,
    events.SettingsUpdated: _own_settings,
    events.ProfileUpdated: _profile,
    events.DeviceRegistered: _device_registered,
    events.DeviceRevoked: _device_revoked,
    events.UserBlocked: _blocked,
    events.UserUnblocked: _blocked,
}
