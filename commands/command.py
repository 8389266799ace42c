"""What every command is, and what its handler may use to decide it."""

from datetime import datetime
from typing import ClassVar, Protocol

import msgspec

from domain.conversations import Conversation
from domain.messages import Receipt
from domain.pairs import Pair
from domain.reservations import Reservation
from domain.users import User
from streams import subjects


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """A request to change something. Decided once, by the writer of `slot`'s partition in `family`.

    Attributes:
        family: of the streams that its events go to.
        actor_id: who asks; authenticated before the command is made.
        correlation_id: names the request in logs and in the events' headers.
        trace: W3C `traceparent`, if the client sent one.
    """

    family: ClassVar[str] = subjects.CONV

    actor_id: str
    correlation_id: str = ""
    trace: str = ""

    @property
    def slot(self) -> int:
        """Where the command is decided: `partition = slot mod partitions`."""
        raise NotImplementedError

    @property
    def lane(self) -> str:
        """The aggregate it is mainly about. Commands of one lane are decided in the order they came, also
        when the first of them has to wait for something to be loaded."""
        raise NotImplementedError

    @property
    def repeatable(self) -> bool:
        """Whether it may be asked again where nobody knows if it was decided: twice does what once does, and the
        answer is the same."""
        return False


class NotLoaded(Exception):
    """The decision needs an aggregate that is not in memory. The writer loads it and decides again.

    Attributes:
        aggregate_id: a decimal id, the key of a reservation or a pair, or a user id.
    """

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(aggregate_id)
        self.aggregate_id = aggregate_id


class Deciding(Protocol):
    """What a handler may use. Everything in it is in memory: a handler never waits."""

    @property
    def now(self) -> datetime:
        """The writer's time, UTC, whole milliseconds, never behind the partition's newest event."""
        ...

    def new_id(self, slot: int) -> int:
        """A new id of a slot of this partition."""
        ...

    def conversation(self, conversation_id: int) -> Conversation:
        """A conversation.

        Raises:
            NotFound: the log has none of this id. NotLoaded: not in memory yet.
        """
        ...

    def reservation(self, key: str) -> Reservation | None:
        """What a key is reserved for, `None` if it is free.

        Raises:
            NotLoaded: not in memory yet.
        """
        ...

    def pair(self, key: str) -> Pair | None:
        """What stands between the two users of a key, `None` if neither ever blocked the other.

        Raises:
            NotLoaded: not in memory yet.
        """
        ...

    def user(self, user_id: str) -> User:
        """A user. One of whom nothing is kept yet is made, and stored with the first fact that is decided of them.

        Raises:
            NotLoaded: not in memory yet.
        """
        ...

    def add(self, aggregate: Conversation | Pair | Reservation) -> None:
        """A new aggregate, whose first events are to be appended."""
        ...

    def looked_up(self, sender_id: str, client_msg_id: str) -> tuple[Receipt | None, bool]:
        """What a look-up after `ReceiptUnknown` found, and whether there was one."""
        ...


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="result"):
    """What a decided and durable command answers."""
