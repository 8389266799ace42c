"""What is told of the past."""

import msgspec

from projections.pages import InboxEntry, MemberView
from streams.public import ConversationView, Message


class AsOf(msgspec.Struct, frozen=True):
    """The event that was the newest then: `stream` and `sequence` are its place in the log."""

    version: int
    occurred_at: str
    stream: str
    sequence: int


class PastConversationView(msgspec.Struct, frozen=True):
    """A conversation as it was, with a page of its members by user id, and its newest message."""

    as_of: AsOf
    conversation: ConversationView
    members: list[MemberView]
    has_more: bool
    last_message: Message | None


class PastMembership(msgspec.Struct, frozen=True):
    """What a conversation was to a user. Of who was no member only `left_at` and `left_version` may be there.

    Attributes:
        read_seq: by marker or by posting, whichever is further.
    """

    as_of: AsOf
    conversation_id: str
    user_id: str
    is_member: bool
    role: str | None = None
    joined_seq: int | None = None
    joined_at: str | None = None
    joined_version: int | None = None
    left_at: str | None = None
    left_version: int | None = None
    read_seq: int | None = None
    unread: int | None = None
    muted_until: str | None = None
    pinned: bool = False
    hidden: bool = False


class PastInbox(msgspec.Struct, frozen=True):
    """A user's conversations as they were, the newest first. `page`: gives the next page; `None` at the end."""

    user_id: str
    at: str
    conversations: list[InboxEntry]
    page: str | None
