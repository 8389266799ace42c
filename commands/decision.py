"""What handlers decide with (`Deciding`), and what a group of decided commands comes to."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from commands.cache import AggregateCache, AnyAggregate, Loaded
from commands.command import Command, NotLoaded, Result
from commands.handlers import handle
from domain.conversations import Conversation
from domain.errors import DomainError, NotFound
from domain.ids import IdSequence
from domain.messages import Receipt
from domain.reservations import Reservation
from streams import codec, subjects
from streams.ports import Record


@dataclass(slots=True, eq=False)
class Pending:
    """A command on its way: who waits for it, and what was looked up for it."""

    command: Command
    future: "asyncio.Future[Result]"
    deadline: float
    receipts: dict[tuple[str, str], Receipt | None] = field(default_factory=dict)

    def settle(self, outcome: Result | Exception) -> None:
        """Tell whoever waits, if they still do."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


@dataclass(slots=True)
class Group:
    """Commands decided together, to be appended as one. Outcomes are told only once the records are durable:
    also a refusal may rest on what the group itself would write."""

    append_id: str
    outcomes: list[tuple[Pending, Result | Exception]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    touched: dict[str, int] = field(default_factory=dict)  # aggregate id → index of its last record
    size_bytes: int = 0


class Decision:
    """Decides commands of one partition one after the other, each seeing what those before it decided.

    Implements `commands.command.Deciding`.
    """

    def __init__(self, cache: AggregateCache, ids: IdSequence, *, family: str, partition: int, append_id: str) -> None:
        self.group = Group(append_id)
        self.dirty = False
        self.now = datetime.now(UTC)
        self._cache = cache
        self._ids = ids
        self._family = family
        self._partition = partition
        self._now_ms = 0
        self._pending: Pending | None = None
        self._used: dict[str, AnyAggregate] = {}

    def decide(self, pending: Pending, now_ms: int) -> None:
        """Add a command and its events to the group.

        After this, `dirty` says that a refusal left undecided events in an aggregate: append the group, then
        forget the aggregates of `pending`.

        Raises:
            NotLoaded, ReceiptUnknown: the command is not in the group; fetch what is missing and come again.
        """
        self._now_ms = max(now_ms, self._ids.newest_ms)
        self.now = datetime.fromtimestamp(self._now_ms / 1000, UTC)
        self._pending = pending
        self._used.clear()
        outcome: Result | Exception
        try:
            outcome = handle(pending.command, self)
        except DomainError as refusal:
            outcome = refusal
            self.dirty = any(aggregate.pending_events for aggregate in self._used.values())
        else:
            self._collect(pending.command)
        self.group.outcomes.append((pending, outcome))

    def _collect(self, command: Command) -> None:
        metadata = codec.Metadata(correlation_id=command.correlation_id, trace=command.trace)
        group = self.group
        for aggregate_id, aggregate in self._used.items():
            if not aggregate.pending_events:
                continue
            subject = subjects.aggregate(self._family, self._partition, aggregate_id)
            for event in aggregate.collect_events():
                append_id = "" if group.records else group.append_id
                record = codec.encode(event, subject, metadata, append_id=append_id)  # type: ignore[arg-type]
                group.records.append(record)
                group.size_bytes += len(record.data)
            group.touched[aggregate_id] = len(group.records) - 1

    # -- Deciding -------------------------------------------------------------------------------------------

    def new_id(self, slot: int) -> int:
        return self._ids.next(slot, self._now_ms)

    def conversation(self, conversation_id: int) -> Conversation:
        aggregate = self._loaded(str(conversation_id)).aggregate
        if not isinstance(aggregate, Conversation):
            raise NotFound("there is no such conversation")
        self._used[aggregate.id] = aggregate
        return aggregate

    def reservation(self, key: str) -> Reservation | None:
        aggregate = self._loaded(key).aggregate
        return aggregate if isinstance(aggregate, Reservation) else None

    def add(self, aggregate: Conversation | Reservation) -> None:
        self._cache.put(aggregate.id, Loaded(aggregate))
        self._used[aggregate.id] = aggregate

    def looked_up(self, sender_id: str, client_msg_id: str) -> tuple[Receipt | None, bool]:
        assert self._pending is not None
        receipts = self._pending.receipts
        key = (sender_id, client_msg_id)
        return receipts.get(key), key in receipts

    def _loaded(self, aggregate_id: str) -> Loaded:
        loaded = self._cache.get(aggregate_id)
        if loaded is None:
            raise NotLoaded(aggregate_id)
        return loaded
