"""What handlers decide with (`Deciding`), and what a group of decided commands comes to."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from commands import metrics
from commands.cache import AggregateCache, AnyAggregate, Loaded
from commands.command import Command, NotLoaded, Result
from commands.handlers import handle
from domain.conversations import Conversation
from domain.errors import DomainError, NotFound
from domain.ids import IdSequence
from domain.messages import Receipt
from domain.pairs import Pair
from domain.reservations import Reservation
from domain.users import User
from streams import codec, subjects
from streams.ports import Record

NAMED_MAX = 10  # correlation ids in a line about several commands


@dataclass(slots=True, eq=False)
class Pending:
    """A command on its way: who waits for it, what was looked up for it, and from when on it may be decided."""

    command: Command
    future: "asyncio.Future[Result]"
    deadline: float
    receipts: dict[tuple[str, str], Receipt | None] = field(default_factory=dict)
    not_before_ms: int = 0

    def settle(self, outcome: Result | Exception) -> None:
        """Tell whoever waits, if they still do."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def refuse(self, error: Exception) -> None:
        """Settle a command that is in no group, and count it."""
        self.settle(error)
        metrics.answered([(self.command, error)])


def named(waiting: Iterable[Pending], most: int = NAMED_MAX) -> list[str]:
    """The requests that commands are of, for a log line about them."""
    return [pending.command.correlation_id for pending in islice(waiting, most)]


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
        self._new_users: set[str] = set()  # whose only event so far is that there is such a user

    def decide(self, pending: Pending, now_ms: int) -> None:
        """Add a command and its events to the group.

        After this, `dirty` says that a refusal left undecided events in an aggregate: append the group, then
        forget the aggregates of `pending`.

        Raises:
            NotLoaded, ReceiptUnknown, TooSoon: the command is not in the group; fetch what is missing, or wait, and
                come again.
        """
        self._now_ms = self._ids.advance(max(now_ms, pending.not_before_ms))
        self.now = datetime.fromtimestamp(self._now_ms / 1000, UTC)
        self._pending = pending
        self._used.clear()
        self._new_users.clear()
        outcome: Result | Exception
        try:
            outcome = handle(pending.command, self)
        except DomainError as refusal:
            outcome = refusal
            self.dirty = any(map(self._decided, self._used))
        else:
            self._collect(pending.command)
        self.group.outcomes.append((pending, outcome))

    def _collect(self, command: Command) -> None:
        metadata = codec.Metadata(correlation_id=command.correlation_id, trace=command.trace)
        group = self.group
        for aggregate_id, aggregate in self._used.items():
            if not self._decided(aggregate_id):
                continue
            if aggregate_id in self._new_users:
                self._cache.put(aggregate_id, Loaded(aggregate))
            subject = subjects.aggregate(self._family, self._partition, aggregate_id)
            for event in aggregate.collect_events():
                append_id = "" if group.records else group.append_id
                record = codec.encode(event, subject, metadata, append_id=append_id)  # type: ignore[arg-type]
                group.records.append(record)
                group.size_bytes += len(record.data)
            group.touched[aggregate_id] = len(group.records) - 1

    def _decided(self, aggregate_id: str) -> bool:
        # That there is such a user is worth an event only with a fact about them.
        return len(self._used[aggregate_id].pending_events) > (aggregate_id in self._new_users)

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

    def pair(self, key: str) -> Pair | None:
        aggregate = self._loaded(key).aggregate
        if not isinstance(aggregate, Pair):
            return None
        self._used[key] = aggregate
        return aggregate

    def user(self, user_id: str) -> User:
        aggregate = self._used.get(user_id) or self._loaded(user_id).aggregate
        if not isinstance(aggregate, User):
            aggregate = User.create(user_id, now=self.now)
            self._new_users.add(user_id)
        self._used[user_id] = aggregate
        return aggregate

    def add(self, aggregate: Conversation | Pair | Reservation) -> None:
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
