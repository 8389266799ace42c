"""The durable facts. An event is never edited and never renamed; a new shape is a new `class_version` with an upcast.

`TOPIC` is the event's name for ever: in the log's headers, in the tables and in the public protocol.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from eventsourcing.domain import CanInitAggregate, CanMutateAggregate
from eventsourcing.utils import register_topic


@dataclass(frozen=True)
class Event(CanMutateAggregate[str]):
    """A fact about one aggregate.

    Attributes:
        originator_id: the aggregate: an id in decimal, a user id, or the key of a reservation or a pair.
        originator_version: the event's number in its aggregate, 1, 2, 3, … with no hole.
        timestamp: when it was decided, UTC, whole milliseconds.
        actor_id: the user who asked for it.
    """

    TOPIC: ClassVar[str]

    originator_id: str
    originator_version: int
    timestamp: datetime
    actor_id: str

    def apply(self, aggregate: Any) -> None:
        """Fold this event into its aggregate, which knows how."""
        aggregate.fold(self)


@dataclass(frozen=True)
class ConversationCreated(CanInitAggregate[str], Event):
    """`members` maps user ids to roles, the creator among them."""

    TOPIC = "conversation.created"

    originator_topic: str
    kind: str
    name: str | None
    members: dict[str, str]
    settings: dict[str, Any]


@dataclass(frozen=True)
class ConversationUpdated(Event):
    """What changed, whole: the new name, the new settings."""

    TOPIC = "conversation.updated"

    name: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class MemberAdded(Event):
    TOPIC = "member.added"

    user_id: str
    role: str
    joined_seq: int


@dataclass(frozen=True)
class MemberRemoved(Event):
    TOPIC = "member.removed"

    user_id: str


@dataclass(frozen=True)
class MemberUpdated(Event):
    TOPIC = "member.updated"

    user_id: str
    role: str


@dataclass(frozen=True)
class MessagePosted(Event):
    """`actor_id` is the sender; `reply_to` is the id of an earlier message."""

    TOPIC = "message.posted"

    seq: int
    message_id: int
    client_msg_id: str
    body: dict[str, Any]
    reply_to: int | None
    mentions: list[str]


@dataclass(frozen=True)
class ConversationReserved(CanInitAggregate[str], Event):
    """Internal: the one conversation that a reservation's key stands for."""

    TOPIC = "conversation.reserved"

    originator_topic: str
    conversation_id: int


@dataclass(frozen=True)
class PairCreated(CanInitAggregate[str], Event):
    """Internal: two users of whom one blocked the other for the first time."""

    TOPIC = "pair.created"

    originator_topic: str


@dataclass(frozen=True)
class PairBlocked(Event):
    """Internal: `actor_id` takes no direct messages of the other any more."""

    TOPIC = "pair.blocked"


@dataclass(frozen=True)
class PairUnblocked(Event):
    """Internal: `actor_id` takes them again."""

    TOPIC = "pair.unblocked"


@dataclass(frozen=True)
class UserCreated(CanInitAggregate[str], Event):
    """Internal: the first thing kept of a user. A user needs no registration; this comes before the first fact."""

    TOPIC = "user.created"

    originator_topic: str


@dataclass(frozen=True)
class ProfileUpdated(Event):
    """The new profile, whole."""

    TOPIC = "profile.updated"

    display_name: str | None
    avatar_url: str | None
    attributes: dict[str, str]


@dataclass(frozen=True)
class DeviceRegistered(Event):
    """A device connected for the first time, or for the first time since it was revoked."""

    TOPIC = "device.registered"

    device_id: str
    kind: str


@dataclass(frozen=True)
class DeviceRevoked(Event):
    """Tokens issued up to now open no session for this device any more."""

    TOPIC = "device.revoked"

    device_id: str


@dataclass(frozen=True)
class UserBlocked(Event):
    TOPIC = "user.blocked"

    user_id: str


@dataclass(frozen=True)
class UserUnblocked(Event):
    TOPIC = "user.unblocked"

    user_id: str


@dataclass(frozen=True)
class ReadMoved(Event):
    """`actor_id` has read the conversation up to `seq`, which is more than before."""

    TOPIC = "read.moved"

    conversation_id: int
    seq: int


@dataclass(frozen=True)
class SettingsUpdated(Event):
    """The user's own settings of a conversation, whole. `muted_until`: UTC, `None` when not muted."""

    TOPIC = "settings.updated"

    conversation_id: int
    muted_until: datetime | None
    pinned: bool
    hidden: bool


OF_CONVERSATIONS: tuple[type[Event], ...] = (
    ConversationCreated,
    ConversationUpdated,
    MemberAdded,
    MemberRemoved,
    MemberUpdated,
    MessagePosted,
)
OF_USERS: tuple[type[Event], ...] = (
    ProfileUpdated,
    DeviceRegistered,
    DeviceRevoked,
    UserBlocked,
    UserUnblocked,
    ReadMoved,
    SettingsUpdated,
)
INTERNAL: tuple[type[Event], ...] = (ConversationReserved, PairCreated, PairBlocked, PairUnblocked, UserCreated)
EVENTS: tuple[type[Event], ...] = (*OF_CONVERSATIONS, *OF_USERS, *INTERNAL)
for _event in EVENTS:
    register_topic(_event.TOPIC, _event)

AnyEvent = TypeVar("AnyEvent", bound=Event)
