"""What queries return: views, and pages of them."""

import msgspec

from streams.public import Message


class MemberView(msgspec.Struct, frozen=True):
    """A member as the other members see them. `joined_at` is RFC 3339 UTC with milliseconds."""

    user_id: str
    role: str
    joined_seq: int
    joined_at: str


class StoredEvent(msgspec.Struct, frozen=True):
    """A `streams.public.PublicEvent` whose `data` is the JSON that was stored: encoded, the two are equal."""

    type: str
    conversation_id: str
    version: int
    occurred_at: str
    actor_id: str
    data: msgspec.Raw


class MembersPage(msgspec.Struct, frozen=True):
    """Members by user id."""

    members: list[MemberView]
    has_more: bool


class MessagesPage(msgspec.Struct, frozen=True):
    """Messages by seq, ascending. `has_more`: there are others in the direction that was read."""

    messages: list[Message]
    has_more: bool


class EventsPage(msgspec.Struct, frozen=True):
    """Events by version, ascending."""

    events: list[StoredEvent]
    has_more: bool


class Membership(msgspec.Struct, frozen=True):
    """A conversation of a user. `version`: the newest that `events_page` knew at the same moment."""

    conversation_id: int
    version: int
