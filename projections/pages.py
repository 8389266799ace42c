"""What queries return: views, and pages of them."""

from dataclasses import dataclass

import msgspec

from domain.ids import partition_of, user_slot
from streams.cursor import Cursor
from streams.public import Message, UserEvent


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


class SearchPage(msgspec.Struct, frozen=True):
    """Messages that contain what was looked for, the newest first. `before`: gives the next page; `None` at the end."""

    messages: list[Message]
    before: str | None


class Membership(msgspec.Struct, frozen=True):
    """A conversation of a user.

    Attributes:
        version: up to which there is nothing to push.
        member_count: of the conversation, as of `counted_version`.
    """

    conversation_id: int
    version: int
    member_count: int
    counted_version: int


class OwnSettings(msgspec.Struct, frozen=True):
    """A user's own settings of a conversation. `muted_until`: RFC 3339 UTC, `None` when not muted."""

    muted_until: str | None = None
    pinned: bool = False
    hidden: bool = False


class InboxEntry(msgspec.Struct, frozen=True):
    """A conversation as one of its members has it in their inbox.

    Attributes:
        peer_id: the other one of a direct conversation; `None` in others.
        read_seq: up to which the user has read; posting reads one's own message.
        unread: messages after that, and not from before the user came.
        last_message: a `streams.public.Message`, as JSON; `None` before the first.
        muted: whether `muted_until` is yet to come.
    """

    conversation_id: str
    kind: str
    name: str | None
    peer_id: str | None
    version: int
    last_seq: int
    joined_seq: int
    read_seq: int
    unread: int
    last_message: msgspec.Raw | None
    updated_at: str
    muted: bool
    muted_until: str | None
    pinned: bool
    hidden: bool


class InboxPage(msgspec.Struct, frozen=True):
    """Conversations, the newest first.

    Attributes:
        cursor: everything up to it is in the inbox: where `sync` and push go on.
        page: gives the next page; `None` when there is none.
    """

    conversations: list[InboxEntry]
    cursor: str
    page: str | None


class SyncEntry(InboxEntry, frozen=True, kw_only=True):
    """A conversation in which something happened.

    Attributes:
        events: what happened, in order of version; the newest of it when `events_truncated`.
        events_truncated: there was more than is given: `GET …/events` after one's own version has all.
    """

    events: list[StoredEvent]
    events_truncated: bool


class LeftEntry(msgspec.Struct, frozen=True):
    """A conversation that the user is not in any more. `events` end with their removal."""

    conversation_id: str
    version: int
    events: list[StoredEvent]
    events_truncated: bool


class SyncPage(msgspec.Struct, frozen=True):
    """What happened since a cursor.

    Attributes:
        cursor: where the next sync goes on.
        done: whether that was all; else sync again at once.
        reset: the cursor could not be used: start again from the inbox. Nothing else is given then, but a cursor.
    """

    conversations: list[SyncEntry]
    left: list[LeftEntry]
    cursor: str
    done: bool
    reset: bool


class ReadReceipt(msgspec.Struct, frozen=True):
    """How far a member has read. `read_at`: when they moved their marker; `None` if only by posting, or never."""

    user_id: str
    read_seq: int
    read_at: str | None


class ReadReceiptsPage(msgspec.Struct, frozen=True):
    """Read receipts by user id."""

    receipts: list[ReadReceipt]
    has_more: bool


class Profile(msgspec.Struct, frozen=True):
    """What a user shows of themselves."""

    user_id: str
    display_name: str | None = None
    avatar_url: str | None = None
    attributes: dict[str, str] = {}


class Device(msgspec.Struct, frozen=True):
    """An installation of a client.

    Attributes:
        revoked_at: when it was last revoked: tokens issued up to then open no session for this device.
        revoked: whether it has not been registered anew since.
    """

    device_id: str
    kind: str
    registered_at: str
    revoked_at: str | None
    revoked: bool


class Block(msgspec.Struct, frozen=True):
    """A user of whom no direct messages are taken."""

    user_id: str
    blocked_at: str


@dataclass(frozen=True, slots=True)
class Positions:
    """How far the read models have come.

    Attributes:
        conversations: for each partition of conversations the sequence up to which every read model has it.
        users: the same of the users' partitions.
    """

    conversations: tuple[int, ...]
    users: tuple[int, ...]

    def reaches(self, other: "Positions") -> bool:
        """Whether these are no earlier, partition by partition."""
        mine, theirs = (*self.conversations, *self.users), (*other.conversations, *other.users)
        return all(here >= there for here, there in zip(mine, theirs, strict=True))

    def cursor(self, user_id: str) -> Cursor:
        """The cursor of a user who has seen everything up to here."""
        return Cursor(self.conversations, self.users[partition_of(user_slot(user_id), len(self.users))])


@dataclass(frozen=True, slots=True)
class Inbox:
    """A page of a user's inbox as it was read: an `InboxPage` whose cursor is yet to be sealed.

    Attributes:
        cursor: everything up to it is in the inbox.
        page: gives the next page; `None` when there is none.
    """

    conversations: list[InboxEntry]
    cursor: Cursor
    page: str | None


@dataclass(frozen=True, slots=True)
class Synced:
    """What happened since a cursor, as it was read: a `SyncPage` whose cursor is yet to be sealed.

    Attributes:
        cursor: where the next sync goes on.
        done: whether that was all.
    """

    conversations: list[SyncEntry]
    left: list[LeftEntry]
    cursor: Cursor
    done: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """Everything that a session missed since a cursor.

    Attributes:
        events: of conversations, those of one conversation in order of version.
        own: the user's own events, in order; of several about the same thing the newest.
        memberships: the conversations that the user is in. `events` has all up to their versions, and nothing after.
        cursor: what has been seen when all that is.
        user_version: of the user's newest own event, 0 without one.
    """

    events: list[StoredEvent]
    own: list[UserEvent]
    memberships: list[Membership]
    cursor: Cursor
    user_version: int


class Standing(msgspec.Struct, frozen=True):
    """What a conversation is to one of its members. `posted_seq`: their own newest message, which they have read."""

    kind: str
    last_seq: int
    joined_seq: int
    posted_seq: int
    member_count: int
