"""Aggregates as they were: the log's events up to a moment, folded by the aggregates' own code.

An aggregate keeps what deciding needs. What a reader is told beyond that is noted beside it, event by event: who came
and went when, what everybody posted last, and the newest message.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from domain import events
from domain.conversations import Conversation
from domain.errors import Invalid, NotFound
from domain.events import Event
from domain.ids import partition_of, slot_of, user_slot
from domain.users import User
from projections.past.moment import Moment
from streams import subjects
from streams.codec import decode, event_version
from streams.ports import Log, LogUnavailable

EVENTS_MAX: Final = 100_000  # of one question over HTTP: seconds of work


class Place(NamedTuple):
    """An event's place: its version in the aggregate, its position in the log, its time."""

    version: int
    stream: str
    sequence: int
    at: datetime


class Budget:
    """How many events one question may fold."""

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self._left = events_max

    def spend(self) -> None:
        """Fold one more.

        Raises:
            Invalid: that is one too many.
        """
        if self._left == 0:
            raise Invalid(
                f"more than {self._events_max:,} events would have to be folded: ask for an earlier moment, or ask "
                "`riverrun as-of`, which takes --events"
            )
        self._left -= 1


@dataclass(slots=True)
class PastConversation:
    """A conversation, and what was noted beside it.

    Attributes:
        joined: of the members; departed: of who was a member once, at their newest departure.
        posted: of who ever posted, the seq of their newest message while they were a member.
    """

    conversation: Conversation
    place: Place
    joined: dict[str, Place] = field(default_factory=dict)
    departed: dict[str, Place] = field(default_factory=dict)
    posted: dict[str, int] = field(default_factory=dict)
    last_message: events.MessagePosted | None = None

    def note(self, event: Event) -> None:
        """Take down what the aggregate forgets."""
        match event:
            case events.MessagePosted():
                self.posted[event.actor_id] = event.seq
                self.last_message = event
            case events.ConversationCreated():
                self.joined = dict.fromkeys(event.members, self.place)
            case events.MemberAdded():
                self.joined[event.user_id] = self.place
            case events.MemberRemoved():
                self.departed[event.user_id] = self.place
                self.joined.pop(event.user_id, None)
                self.posted.pop(event.user_id, None)


async def past_conversation(
    log: Log, conversation_id: int, moment: Moment, budget: Budget, *, partitions: int
) -> PastConversation:
    """A conversation as it was at a moment.

    Raises:
        NotFound: there was none. Invalid: it has no such version yet, or too many events.
        LogUnavailable: the log cannot be read.
    """
    past: PastConversation | None = None
    conversation: Any = None
    partition = partition_of(slot_of(conversation_id), partitions)
    subject = subjects.aggregate(subjects.CONV, partition, str(conversation_id))
    async with aclosing(_history(log, subjects.stream(subjects.CONV, partition), subject, moment, budget)) as history:
        async for place, event in history:
            conversation = event.mutate(conversation)
            if past is None:
                past = PastConversation(conversation, place)
            past.place = place
            past.note(event)
    if past is None:
        raise NotFound(f"there was no conversation {conversation_id} as of {moment}")
    if moment.version is not None and past.place.version < moment.version:
        raise Invalid(f"conversation {conversation_id} is at version {past.place.version}", field="version")
    return past


async def past_user(log: Log, user_id: str, moment: Moment, budget: Budget, *, partitions: int) -> User | None:
    """A user as they were at a moment; `None` if nothing was kept of them.

    Raises:
        Invalid: too many events. LogUnavailable: the log cannot be read.
    """
    user: Any = None
    partition = partition_of(user_slot(user_id), partitions)
    subject = subjects.aggregate(subjects.USER, partition, user_id)
    async with aclosing(_history(log, subjects.stream(subjects.USER, partition), subject, moment, budget)) as history:
        async for _, event in history:
            user = event.mutate(user)
    assert user is None or isinstance(user, User)
    return user


async def _history(
    log: Log, stream: str, subject: str, moment: Moment, budget: Budget
) -> AsyncGenerator[tuple[Place, Event]]:
    """The events of an aggregate up to a moment, with no hole."""
    if (last := await log.last(stream, subject)) is None:
        return
    version = 0
    async for delivery in log.read(stream, subject=subject, up_to_sequence=last.sequence):
        try:
            event = decode(delivery)
        except Exception as error:
            where = f"{stream}:{delivery.sequence}"
            raise LogUnavailable(f"the event {where} cannot be decoded, and what comes after it rests on it") from error
        if event.originator_version != version + 1:
            raise LogUnavailable(f"{subject}: version {event.originator_version} follows {version}")
        if not moment.has(event):
            return
        budget.spend()
        version = event.originator_version
        yield Place(version, stream, delivery.sequence, event.timestamp), event
    if version != event_version(last.headers):
        raise LogUnavailable(f"{subject} could not be read up to its last event, sequence {last.sequence}; try again")
