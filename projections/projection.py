"""What a projection is: a name, and a way to fold a batch of events into rows inside somebody else's transaction."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from psycopg import AsyncConnection

from domain.events import Event

Connection: TypeAlias = AsyncConnection[Any]  # rows are tuples of what the statement selects


class LoggedEvent(NamedTuple):
    """An event and its position in its partition."""

    sequence: int
    event: Event


class Projection(Protocol):
    """Folds events into a read model.

    Attributes:
        name: names the checkpoint, the durable consumer and the dead-letter subject. Never changes.
        version: of the code and its tables. Raised when events are to become other rows than before: the read models
            are then rebuilt, and code of another version does not write into them.
    """

    name: str
    version: int

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """Fold a batch, one partition's events in log order, into rows.

        Runs once inside the caller's transaction, which also moves the checkpoint. Applying what was applied
        before, in a transaction before, changes nothing. Types of events the projection does not know are passed over.

        Raises:
            psycopg.OperationalError: Postgres went away; the same batch will be applied again.
            Exception: an event of the batch cannot be applied; its effects are rolled back.
        """
        ...
