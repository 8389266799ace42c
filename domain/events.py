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
        originator_id: the aggregate: an id in decimal, or a reservation's key.
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


EVENTS: tuple[type[Event], ...] = (
    ConversationCreated,
    ConversationUpdated,
    MemberAdded,
    MemberRemoved,
    MemberUpdated,
    MessagePosted,
    ConversationReserved,
)
for _event in EVENTS:
    register_topic(_event.TOPIC, _event)

AnyEvent = TypeVar("AnyEvent", bound=Event)
