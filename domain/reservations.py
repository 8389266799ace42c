"""Reservations: an aggregate of one event that makes a key stand for one conversation, for ever."""

from datetime import datetime

from eventsourcing.domain import BaseAggregate
from eventsourcing.utils import register_topic

from domain.events import ConversationReserved, Event


class Reservation(BaseAggregate[str]):
    """Its id is a `ReservationKey.value`."""

    TOPIC = "reservation"

    def __init__(self, conversation_id: int) -> None:
        self.conversation_id = conversation_id

    def fold(self, event: Event) -> None:
        """Nothing follows the first event."""

    @classmethod
    def reserve(cls, key: str, conversation_id: int, *, actor_id: str, now: datetime) -> "Reservation":
        """Take a key that nothing has taken."""
        return cls._create(
            ConversationReserved, id=key, timestamp=now, actor_id=actor_id, conversation_id=conversation_id
        )


register_topic(Reservation.TOPIC, Reservation)
