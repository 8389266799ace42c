"""What the tests of the write side share: a partition with a writer over a log, and readable looks into the log."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from commands.conversations import ConversationResult, CreateConversation
from commands.messages import MessageResult, PostMessage
from commands.ports import ReceiptLookup, Snapshot, Trimmed
from commands.repository import Repository
from commands.writer import PartitionWriter
from domain.errors import Unavailable
from domain.events import Event, MessagePosted
from domain.messages import Receipt
from streams import codec, subjects
from streams.ports import Delivery, Log, LogError, Record

STREAM = subjects.stream(subjects.CONV, 0)


class FaultyLog:
    """A real log whose next append can be made to fail in the two ways that look alike to a writer."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._fault: tuple[LogError, bool] | None = None
        self._read_fault: LogError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def fail_next_append(self, error: LogError, *, landed: bool) -> None:
        """The next append raises `error`, after (`landed`) or instead of storing anything."""
        self._fault = (error, landed)

    def fail_next_read(self, error: LogError) -> None:
        """The next reading raises `error` before it gives anything."""
        self._read_fault = error

    async def read(self, stream: str, **arguments: Any) -> AsyncIterator[Delivery]:
        fault, self._read_fault = self._read_fault, None
        if fault is not None:
            raise fault
        async for delivery in self._log.read(stream, **arguments):
            yield delivery

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        fault, self._fault = self._fault, None
        if fault is None:
            return await self._log.append(stream, records, expected_last_sequence=expected_last_sequence)
        error, landed = fault
        if landed:
            await self._log.append(stream, records, expected_last_sequence=expected_last_sequence)
        raise error


class Snapshots:
    """A snapshot store in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, Snapshot] = {}
        self.loads = 0
        self.covered = 0

    async def load(self, family: str, aggregate_id: str) -> Snapshot | None:
        self.loads += 1
        snapshot = self.kept.get(aggregate_id)
        return snapshot if snapshot and snapshot.family == family else None

    async def save(self, snapshot: Snapshot) -> None:
        self.kept[snapshot.aggregate_id] = snapshot

    async def of_trimmed(self, stream: str, trimmed: int, family: str, aggregate_id: str) -> Trimmed:
        if self.covered < trimmed:
            return Trimmed(is_certain=False)
        return Trimmed(True, await self.load(family, aggregate_id))


class LogReceipts:
    """Receipts found by reading the whole log: slow, and right by construction."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.lookups = 0
        self.available = True

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        self.lookups += 1
        if not self.available:
            raise Unavailable("the read model does not answer")
        for event in await events_of(self._log, str(conversation_id)):
            if isinstance(event, MessagePosted) and (event.actor_id, event.client_msg_id) == (
                sender_id,
                client_msg_id,
            ):
                return Receipt.of(event)
        return None


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def writing(
    log: Log,
    *,
    family: str = subjects.CONV,
    snapshots: Snapshots | None = None,
    receipts: ReceiptLookup | None = None,
    clock_ms: Callable[[], int] = wall_ms,
    queue_max: int = 10_000,
    cache_bytes: int = 1 << 26,
) -> AsyncIterator[PartitionWriter]:
    """A running writer of partition 0 of a family."""
    writer = PartitionWriter(
        log,
        Repository(log, snapshots or Snapshots(), family=family, partition=0),
        receipts or LogReceipts(log),
        family=family,
        partition=0,
        clock_ms=clock_ms,
        queue_max=queue_max,
        cache_bytes=cache_bytes,
    )
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def create(writer: PartitionWriter, *members: str, actor: str = "alice", client_id: str | None = None) -> int:
    """A group, by its id."""
    result = await writer.submit(
        CreateConversation(
            actor_id=actor, kind="group", members=list(members), placement=0, client_conversation_id=client_id
        )
    )
    assert isinstance(result, ConversationResult)
    return int(result.conversation.conversation_id)


async def post(
    writer: PartitionWriter, conversation: int, client_msg_id: str, text: str = "hi", actor: str = "alice"
) -> MessageResult:
    result = await writer.submit(message(conversation, client_msg_id, text, actor))
    assert isinstance(result, MessageResult)
    return result


def message(conversation: int, client_msg_id: str, text: str = "hi", actor: str = "alice") -> PostMessage:
    return PostMessage(actor_id=actor, conversation_id=conversation, client_msg_id=client_msg_id, text=text)


async def events_of(log: Log, aggregate_id: str, family: str = subjects.CONV) -> list[Event]:
    """Every event of an aggregate, as the log has it."""
    subject = subjects.aggregate(family, 0, aggregate_id)
    return [codec.decode(delivery) async for delivery in log.read(subjects.stream(family, 0), subject=subject)]


async def texts_of(log: Log, conversation: int) -> list[str]:
    events = await events_of(log, str(conversation))
    return [event.body["text"] for event in events if isinstance(event, MessagePosted)]


async def assert_whole(log: Log, conversation: int) -> None:
    """No hole and no double in versions, seqs, ids or client ids."""
    events = await events_of(log, str(conversation))
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    messages = [event for event in events if isinstance(event, MessagePosted)]
    assert [event.seq for event in messages] == list(range(1, len(messages) + 1))
    ids = [event.message_id for event in messages]
    assert ids == sorted(set(ids))
    keys = [(event.actor_id, event.client_msg_id) for event in messages]
    assert len(keys) == len(set(keys))
