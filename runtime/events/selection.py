"""Which events are wanted, and where they can be."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from domain import events
from domain.events import Event
from domain.ids import partition_of, slot_of, user_slot
from runtime.events.entry import Entry
from streams import subjects
from streams.moments import declared_ms
from streams.ports import Delivery

_OF_USERS: Final[tuple[type[Event], ...]] = (*events.OF_USERS, events.UserCreated)
_FAMILY_OF: Final = {event.TOPIC: subjects.USER if event in _OF_USERS else subjects.CONV for event in events.EVENTS}


class Source(NamedTuple):
    """A stream; or of it one aggregate's events."""

    stream: str
    subject: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted: all that is given must be so.

    Attributes:
        conversation_id: events of this conversation. user_id: events by this user, of them, or about them.
        types: patterns, any of which the type is like: `member.*`.
        since, until: when it was decided.
        partition: a number (of both families), or the name of a stream.
        text: is found in the message's text.
    """

    conversation_id: int | None = None
    user_id: str | None = None
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    partition: str | None = None
    text: re.Pattern[str] | None = None

    def sources(self, partitions: int) -> list[Source]:
        """Where such events can be."""
        types = (events.MessagePosted.TOPIC,) if self.text else self.types
        families = {family for topic, family in _FAMILY_OF.items() if not types or _like(topic, types)}
        places = [(family, number) for family in subjects.FAMILIES for number in range(partitions)]
        return [
            Source(stream, self._subject(family, number))
            for family, number in places
            if (stream := subjects.stream(family, number)) and family in families
            if self.partition in (None, str(number), stream) and self._may_be_in(family, number, partitions)
        ]

    def may_want(self, delivery: Delivery) -> bool:
        """As far as its headers say: cheap, and most events are none."""
        type_ = delivery.headers.get(subjects.TYPE, "")
        if self.text is not None and type_ != events.MessagePosted.TOPIC:
            return False
        if self.types and not _like(type_, self.types):
            return False
        at_ms = declared_ms(delivery)
        if at_ms is None:
            at_ms = _ms(delivery.stored_at)
        return (self.since is None or _ms(self.since) <= at_ms) and (self.until is None or at_ms <= _ms(self.until))

    def wants(self, entry: Entry) -> bool:
        """Whether it is wanted; of those that `may_want` took."""
        if self.user_id is not None and not _concerns(self.user_id, entry):
            return False
        return self.text is None or (entry.text is not None and self.text.search(entry.text) is not None)

    def is_over(self, delivery: Delivery) -> bool:
        """Whether nothing wanted can come after it in its stream."""
        at_ms = declared_ms(delivery)
        return self.until is not None and at_ms is not None and at_ms > _ms(self.until)

    def _may_be_in(self, family: str, number: int, partitions: int) -> bool:
        if self.conversation_id is not None:
            return family == subjects.CONV and number == partition_of(slot_of(self.conversation_id), partitions)
        if self.user_id is not None and family == subjects.USER:
            return number == partition_of(user_slot(self.user_id), partitions)
        return True

    def _subject(self, family: str, number: int) -> str | None:
        if self.conversation_id is not None:
            return subjects.aggregate(family, number, str(self.conversation_id))
        if self.user_id is not None and family == subjects.USER:
            return subjects.aggregate(family, number, self.user_id)
        return None


def known_types() -> list[str]:
    """All types there are."""
    return sorted(_FAMILY_OF)


def _concerns(user_id: str, entry: Entry) -> bool:
    if user_id in (entry.delivery.headers.get(subjects.ACTOR), entry.user_id):
        return True
    return isinstance(entry.event, events.ConversationCreated) and user_id in entry.event.members


def _like(type_: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(type_, pattern) for pattern in patterns)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
