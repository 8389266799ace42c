"""What the rest of Riverrun needs of a log, a bus and a node registry, and what it may rely on.

LogError
├── WrongSequence     somebody else appended: nothing of ours was stored
├── AppendUnknown     no answer came: all of ours was stored, or nothing, now or in a moment
├── LogUnavailable    nothing was sent, or the log said it cannot: nothing was stored
│   └── ArchiveUnavailable  the archive behind the log cannot be read, or written, now
└── RecordTooLarge    an event or a batch is over the log's limits: nothing was stored
BusError
├── NoResponder       nobody answers this subject: the request was not delivered
└── NoReply           delivered perhaps, answered not
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from streams.topology import Topology

BATCH_MAX = 1_000  # events in one append (nats-server: an atomic batch)


class LogError(Exception):
    """The root of what a log can answer."""


class WrongSequence(LogError):
    """The stream's last sequence is not the expected one. Nothing was stored."""


class AppendUnknown(LogError):
    """The outcome of an append is not known. Read the tail before anything is retried or acked.

    The append may even land after this was raised, but only while the stream still ends where it expected:
    once anything else is appended, it never will.
    """


class LogUnavailable(LogError):
    """The log cannot be reached, or refuses for want of room or quorum. Nothing was stored."""


class ArchiveUnavailable(LogUnavailable):
    """The archive does not answer. What the log itself still has can be read."""


class RecordTooLarge(LogError):
    """Over the server's payload limit or the batch limit. Nothing was stored; the same again fails again."""


class BusError(Exception):
    """The root of what a request can end in."""


class NoResponder(BusError):
    """Nobody listens. The request certainly had no effect."""


class NoReply(BusError):
    """No answer in time. The request may have had its effect, or may have it yet."""


# Structs: as frozen dataclasses they took 2 µs each to make, and every event is several of them. They are in no cycle.


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event about to be appended."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it. `sequence` is its position in its partition, from 1, rising, maybe with holes."""

    stream: str
    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    stored_at: datetime


class Signal(msgspec.Struct, frozen=True, gc=False):
    """What core NATS carried: at most once, not stored.

    For a republished event (`live.conv.*`) `headers` hold the event's own, and the stream and sequence
    it was stored under: `Nats-Stream`, `Nats-Sequence`, `Nats-Subject`.
    """

    subject: str
    data: bytes
    headers: Mapping[str, str]


class Consumer(Protocol):
    """A reader's durable place in one stream. Deliveries come in order, at least once."""

    async def fetch(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        """The next deliveries: as soon as one is there, up to `max_count`; empty after `max_wait_s`.

        Between calls the next deliveries are already on their way (bounded). After a reconnect or a
        restart of the server, deliveries resume after the last acknowledged one, so some may repeat.

        Raises:
            LogUnavailable: the log cannot be reached. Call again later.
        """
        ...

    async def ack(self, sequence: int) -> None:
        """Everything up to `sequence` is done. Only tells the server; a reader's own checkpoint is the truth."""
        ...

    async def pending(self) -> int:
        """How many events of the stream this reader has not been given yet."""
        ...

    async def close(self) -> None:
        """Stop pulling. The durable place stays."""
        ...


class Log(Protocol):
    """Streams of events, one a partition.

    An append is durable (on disk, fsynced, at R3 on a majority) before it returns, and all or nothing.
    """

    async def ensure(self, topology: Topology) -> None:
        """Make the streams exist as the topology says; leave existing ones that agree alone. Idempotent.

        Raises:
            TopologyMismatch: streams exist that were made for another number of partitions.
            LogUnavailable: the log cannot be reached.
        """
        ...

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        """Append 1 to 1,000 records as one, if the stream's last sequence is `expected_last_sequence`.

        One append a stream may be under way at a time (facts: R3 with a conditional write in flight).

        Returns:
            The sequence of the last record; the others directly precede it.

        Raises:
            WrongSequence, AppendUnknown, LogUnavailable, RecordTooLarge.
        """
        ...

    async def last_sequence(self, stream: str) -> int:
        """The stream's last sequence, 0 when empty, asked of the leader.

        Raises:
            LogUnavailable: it cannot be reached.
        """
        ...

    async def trimmed(self, stream: str) -> int:
        """Up to which sequence the stream has forgotten, or is about to; 0 when nothing. Asked of the leader.

        Who read something from the stream, and asks after that, knows what may have been missing from it.

        Raises:
            LogUnavailable: it cannot be reached.
        """
        ...

    async def trim(self, stream: str, up_to_sequence: int) -> None:
        """Forget everything up to a sequence, for good, but for what `subjects.stays` names; at most all.

        It is told (`trimmed`) before it is done, and never taken back. `last_sequence` stays. What was forgotten before
        changes nothing.

        Raises:
            LogUnavailable: no answer, or it cannot. Perhaps forgotten all the same: trim again.
        """
        ...

    async def last(self, stream: str, subject: str | None = None) -> Delivery | None:
        """The newest event of a subject (or of the stream), asked of the leader: never stale.

        Raises:
            LogUnavailable: it cannot be reached.
        """
        ...

    def read(
        self,
        stream: str,
        *,
        subject: str | None = None,
        after_sequence: int = 0,
        up_to_sequence: int | None = None,
    ) -> AsyncIterator[Delivery]:
        """Events in order, from after one sequence up to another (or the last one when the reading began).

        A follower may answer, so the newest events may be missing: compare with `last` when that matters.

        Raises:
            LogUnavailable: it cannot be reached, also in the middle.
        """
        ...

    async def consume(self, stream: str, reader: str, *, after_sequence: int) -> Consumer:
        """A reader's durable place, moved so that the next delivery is the first after `after_sequence`.

        One process at a time consumes under one name.

        Raises:
            LogUnavailable: it cannot be reached.
        """
        ...

    async def place(self, stream: str, reader: str) -> int | None:
        """Up to which sequence a reader has acknowledged; right after `consume`, the sequence it was moved to.

        It outlives the process, and may be older than the newest acknowledgement, of which nobody is told whether it
        arrived. A server may forget it; the reader's own checkpoint, where it has one, is the truth.

        Returns:
            `None` where this reader has no durable place (any more).

        Raises:
            LogUnavailable: it cannot be reached, or has no such stream.
        """
        ...

    async def publish_dead(self, subject: str, record: Record) -> None:
        """Store an event that a projection could not apply (subject of `subjects.dead`).

        Raises:
            LogUnavailable: it was not stored.
        """
        ...


class Archive(Protocol):
    """What continues the log backwards: its events, kept for good. All methods raise `ArchiveUnavailable`."""

    async def position(self, stream: str) -> int:
        """Up to which sequence the archive has the stream, 0 when it has nothing."""
        ...

    async def last(self, stream: str, subject: str, *, up_to_sequence: int) -> Delivery | None:
        """The newest event of a subject up to a sequence, `None` where there is none."""
        ...

    def read(
        self, stream: str, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int
    ) -> AsyncIterator[Delivery]:
        """Events in order, byte for byte as the log had them, from after one sequence up to another."""
        ...


class Subscription(Protocol):
    """A live interest in a subject."""

    async def close(self) -> None:
        """End it. No callback runs after this returns."""
        ...


class Bus(Protocol):
    """Core NATS: fast, at most once, in order from one publisher."""

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send to whoever listens now. Nobody is told when nobody does."""
        ...

    async def publish_many(
        self, subjects: Sequence[str], data: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """As `publish` of the same to each subject, in their order, for little more than the price of one.

        What could not be sent because the connection is broken is told as every loss is (`on_loss`): before it, if
        the connection broke before.
        """
        ...

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> Subscription:
        """Hear a subject (wildcards `*` and `>` as in NATS). Returns once the server knows.

        The callback runs on the event loop, one call a message, in order, and must not block.
        """
        ...

    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> Subscription:
        """Answer requests. Handlers run concurrently, started in the order the requests came."""
        ...

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """Ask whoever responds. Requests of one process on one subject arrive in the order they were made.

        Raises:
            NoResponder, NoReply.
        """
        ...

    def on_loss(self, callback: Callable[[str], None]) -> None:
        """Be told, with a reason, whenever deliveries to subscriptions may have been lost: the connection
        broke, or this process was too slow. Hearing of it, treat everything live as unknown."""
        ...


class Nodes(Protocol):
    """Who is alive: each node's announcement, gone when it has not been renewed for its time to live."""

    async def announce(self, node_id: str, data: bytes) -> None:
        """Say or renew that a node is alive (time to live: `NODE_TTL_S`)."""
        ...

    async def withdraw(self, node_id: str) -> None:
        """Say that a node leaves, at once."""
        ...

    async def watch(self, callback: Callable[[dict[str, bytes]], None]) -> Subscription:
        """Call back with all live nodes: now, and within a second of each change."""
        ...


NODE_TTL_S = 3.0  # a dead writer's partitions move after this at the latest
NODE_RENEW_S = 1.0
