"""Where the events of a recorder are: the stream, an aggregate's subject in it, and the library's form of an event."""

import re
from dataclasses import dataclass
from uuid import UUID

from eventsourcing.persistence import DataError, Notification, StoredEvent

from streams import subjects
from streams.ports import Delivery, Record

SUBJECT_BYTES_MAX = 1_024  # a longer line than 4 KiB, and the server hangs up

_PLAIN_TOKENS = re.compile(r"[^\s*>]+")


@dataclass(frozen=True, slots=True)
class StoredIn:
    """A stream, and how events are in it.

    Attributes:
        stream: its name. Of Riverrun's own streams (`CONV-0`) the subjects are Riverrun's, and ids are strings.
        uuids: whether originator ids are UUIDs; else they are strings.
    """

    stream: str
    uuids: bool

    @property
    def is_riverrun(self) -> bool:
        """Whether it is one of Riverrun's own streams, to which nobody but the partition's writer appends."""
        return subjects.partition_of(self.stream) is not None

    def subject(self, originator_id: UUID | str) -> str:
        """The subject of an aggregate.

        Raises:
            DataError: an originator id cannot be that.
        """
        own = subjects.partition_of(self.stream)
        try:
            if own is not None:
                subject = subjects.aggregate(*own, str(originator_id))
            else:
                name = str(UUID(str(originator_id))) if self.uuids else str(originator_id)
                subject = subjects.recorded(self.stream, name)
            size_bytes = len(subject.encode())
        except ValueError as error:  # no UUID; a lone surrogate
            raise DataError(f"not an originator id here: {originator_id!r}") from error
        if subject.endswith(".") or not _PLAIN_TOKENS.fullmatch(subject) or size_bytes > SUBJECT_BYTES_MAX:
            raise DataError(f"not an originator id here: {originator_id!r}")
        return subject

    def record(self, event: StoredEvent, *, append_id: str, highest: int) -> Record:
        """What is appended for an event.

        Args:
            highest: the highest version before it in its aggregate.

        Raises:
            DataError: it has a version or a topic that cannot be kept.
        """
        if event.originator_version < 0 or not event.topic or not event.topic.isprintable():
            raise DataError(f"cannot be kept: version {event.originator_version}, topic {event.topic!r}")
        headers = {
            subjects.TYPE: event.topic,
            subjects.VERSION: str(event.originator_version),
            subjects.APPEND: append_id,
        }
        if highest > event.originator_version:
            headers[subjects.HIGHEST] = str(highest)
        return Record(self.subject(event.originator_id), event.state, headers)

    def event(self, delivery: Delivery) -> StoredEvent:
        """The event of a delivery.

        Raises:
            DataError: it is not one.
        """
        originator_id, version, topic = self._read(delivery)
        return StoredEvent(originator_id, version, topic, delivery.data)

    def notification(self, delivery: Delivery) -> Notification:
        """The event of a delivery, with its place in the stream as its id. Raises as `event`."""
        originator_id, version, topic = self._read(delivery)
        return Notification(originator_id, version, topic, delivery.data, delivery.sequence)

    def _read(self, delivery: Delivery) -> tuple[UUID | str, int, str]:
        try:
            name = (subjects.aggregate_id if self.is_riverrun else subjects.originator_id)(delivery.subject)
            headers = delivery.headers
            return UUID(name) if self.uuids else name, int(headers[subjects.VERSION]), headers[subjects.TYPE]
        except (KeyError, ValueError) as error:
            raise DataError(f"sequence {delivery.sequence} of {self.stream} is no event: {error!r}") from error


def highest_version(delivery: Delivery) -> int:
    """The highest version of an aggregate up to and with an event of it."""
    headers = delivery.headers
    return max(int(headers[subjects.VERSION]), int(headers.get(subjects.HIGHEST, -1)))
