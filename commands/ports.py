"""What deciding needs from outside: snapshots, old receipts, and the door through which commands come."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from commands.command import Command, Result
from domain.messages import Receipt


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An aggregate's state at a version. `sequence` is the log position of the event of that version."""

    family: str
    aggregate_id: str
    version: int
    sequence: int
    schema: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is known of an aggregate of which the log has nothing.

    Attributes:
        is_certain: that all that was trimmed is in the snapshot; without one, that nothing ever happened to it.
    """

    is_certain: bool
    snapshot: Snapshot | None = None


class SnapshotStore(Protocol):
    """Disposable shortcuts for loading. Losing one, or all, costs time only."""

    async def load(self, family: str, aggregate_id: str) -> Snapshot | None:
        """The newest snapshot; `None` if there is none or the store does not answer within a second."""
        ...

    async def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless a newer one is kept already. A failure is logged, not raised."""
        ...

    async def of_trimmed(self, stream: str, trimmed: int, family: str, aggregate_id: str) -> Trimmed:
        """What is known, without the archive, of an aggregate of which the log has nothing (`commands.covering`).

        Args:
            trimmed: up to where the stream has forgotten.
        """
        ...


class ReceiptLookup(Protocol):
    """The receipts that the aggregate has forgotten."""

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        """The receipt of a message, `None` if there certainly is none.

        Raises:
            Unavailable: it could not be looked up in a read model that has seen `min_version`.
        """
        ...


class Dispatcher(Protocol):
    """The door to the write side."""

    def dispatch(self, command: Command) -> "asyncio.Future[Result]":
        """Have a command decided and made durable by the writer of its partition.

        Not a coroutine: the command is on its way when this returns, so commands for one conversation are
        decided, and their futures resolved, in the order of the calls. Cancelling the future does not
        take the command back.

        Raises (through the future):
            DomainError: refused; nothing was stored. `Unavailable` in particular: nothing was acked, and a
                command with a `client_msg_id` may be sent again.
        """
        ...
