"""The `Pair` aggregate: who of two users blocked the other. Asked before one writes to the other directly.

It lies in the slot of their direct conversation, so the writer that decides about the conversation has it as well.
"""

from datetime import UTC, datetime
from typing import Any, Self

from eventsourcing.utils import register_topic

from domain import events
from domain.aggregates import Aggregate


class Pair(Aggregate):
    """Its id is the value of `domain.ids.pair_key`. There is none before one of the two first blocked the other."""

    TOPIC = "pair"

    def __init__(self) -> None:
        self.blockers: set[str] = set()

    @classmethod
    def create(cls, key: str, *, actor_id: str, now: datetime) -> Self:
        """The pair of a key that has none yet."""
        return cls._create(events.PairCreated, id=key, timestamp=now, actor_id=actor_id)

    @property
    def blocks(self) -> bool:
        """Whether any of the two blocked the other."""
        return bool(self.blockers)

    def block(self, *, actor_id: str, now: datetime) -> None:
        """One of the two blocks the other. No event when it is so."""
        if actor_id not in self.blockers:
            self._trigger(events.PairBlocked, actor_id, now)

    def unblock(self, *, actor_id: str, now: datetime) -> None:
        """One of the two takes their block back; the other's stays. No event when it is so."""
        if actor_id in self.blockers:
            self._trigger(events.PairUnblocked, actor_id, now)

    def fold(self, event: events.Event) -> None:
        """Take an event into the state."""
        match event:
            case events.PairBlocked():
                self.blockers.add(event.actor_id)
            case events.PairUnblocked():
                self.blockers.discard(event.actor_id)
            case _:
                pass

    SNAPSHOT_SCHEMA = 1  # a snapshot of another schema is ignored, and the log replayed

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, in MessagePack's types."""
        return {
            "id": self.id,
            "version": self.version,
            "created_on": self.created_on,
            "modified_on": self.modified_on,
            "blockers": sorted(self.blockers),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The aggregate that `state` was taken of."""
        self = cls.__new__(cls)
        self.__base_init__(state["id"], state["version"], state["created_on"].astimezone(UTC))
        self.__init__()  # type: ignore[misc]
        self.modified_on = state["modified_on"].astimezone(UTC)
        self.blockers = set(state["blockers"])
        return self

    @property
    def size_bytes(self) -> int:
        """About how much memory this aggregate holds."""
        return 800


register_topic(Pair.TOPIC, Pair)
