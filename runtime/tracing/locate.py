"""Finding a message's event in the log, by its id or by its conversation and seq.

An id says which partition it is of and when it was made, and the log is halved until that moment is found
(`streams.moments`). Neither Postgres nor anybody's clock is asked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from domain.errors import Invalid
from domain.events import MessagePosted
from domain.ids import parse_id, partition_of, slot_of, time_ms_of
from streams import subjects
from streams.codec import decode
from streams.moments import declared_ms, first_since
from streams.ports import BATCH_MAX, Delivery, Log

BORROWED_MS: Final = 1_000  # an id may be some milliseconds ahead of its event (`domain.ids.IdSequence`)


class NotFound(Exception):
    """There is no such message here. One plain line."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message's event, and what was appended together with it.

    Attributes:
        append_first, append_last: the sequences of the append that it was part of.
    """

    delivery: Delivery
    event: MessagePosted
    partition: int
    append_id: str
    append_first: int
    append_last: int

    @property
    def conversation_id(self) -> int:
        """Whose message it is."""
        return int(self.event.originator_id)


# Asked for the sequence of a message of a conversation by its seq; `None` where nobody knows.
SequenceOf = Callable[[int, int], Awaitable[int | None]]


async def locate(log: Log, name: str, *, partitions: int, sequence_of: SequenceOf) -> Found:
    """The event of the message that is named.

    Args:
        name: `MESSAGE_ID`, or `CONVERSATION_ID:SEQ`.
        sequence_of: a short cut for the second; what it says is checked.

    Raises:
        NotFound: the name is malformed, or the log has no such message. LogUnavailable.
    """
    first, colon, second = name.partition(":")
    try:
        id_, seq = parse_id(first), parse_id(second) if colon else 0
    except Invalid:
        raise NotFound(f"{name!r} names no message: expected MESSAGE_ID or CONVERSATION_ID:SEQ") from None
    partition = partition_of(slot_of(id_), partitions)
    stream = subjects.stream(subjects.CONV, partition)
    if colon:
        subject = subjects.aggregate(subjects.CONV, partition, str(id_))
        delivery = await _by_seq(log, stream, subject, seq, await sequence_of(id_, seq))
    else:
        delivery = await _by_id(log, stream, partition, id_)
    event = decode(delivery)
    assert isinstance(event, MessagePosted)
    return Found(delivery, event, partition, *await _append_of(log, delivery))


async def _by_id(log: Log, stream: str, partition: int, id_: int) -> Delivery:
    made_ms, end = time_ms_of(id_), await log.last_sequence(stream)
    first = await first_since(log, stream, made_ms - BORROWED_MS)
    async for delivery in log.read(stream, after_sequence=first - 1, up_to_sequence=end):
        if (declared_ms(delivery) or 0) > made_ms:
            break
        if (event := _message(delivery)) is not None and event.message_id == id_:
            return delivery
    if await log.last(stream, subjects.aggregate(subjects.CONV, partition, str(id_))) is not None:
        raise NotFound(f"{id_} is a conversation's id; name a message's, or {id_}:SEQ")
    made_at = datetime.fromtimestamp(made_ms / 1000, UTC).isoformat(timespec="milliseconds")
    raise NotFound(
        f"there is no message {id_} in {stream} ({end:,} events), where one made at {made_at} would be: "
        "it is of another deployment, or was never stored"
    )


async def _by_seq(log: Log, stream: str, subject: str, seq: int, sequence: int | None) -> Delivery:
    id_ = subjects.aggregate_id(subject)
    newest = await log.last(stream, subject)
    if newest is None:
        raise NotFound(f"there is no conversation {id_} in {stream}: it is of another deployment, or was never opened")
    starts = [0] if sequence is None else [sequence - 1, 0]
    for after_sequence in starts:
        until = newest.sequence if after_sequence == 0 else after_sequence + 1
        reading = log.read(stream, subject=subject, after_sequence=after_sequence, up_to_sequence=until)
        async for delivery in reading:
            if (event := _message(delivery)) is not None and event.seq == seq:
                return delivery
    raise NotFound(f"conversation {id_} has no message with seq {seq}")


async def _append_of(log: Log, delivery: Delivery) -> tuple[str, int, int]:
    """The append that an event was part of: its id, its first and its last sequence. The first event bears the id."""
    append_id, first, last = "", delivery.sequence, delivery.sequence
    around = max(0, delivery.sequence - BATCH_MAX), delivery.sequence + BATCH_MAX
    async for other in log.read(delivery.stream, after_sequence=around[0], up_to_sequence=around[1]):
        begins = other.headers.get(subjects.APPEND)
        if other.sequence <= delivery.sequence:
            if begins:
                append_id, first = begins, other.sequence
        elif begins:
            break
        else:
            last = other.sequence
    return append_id, first, last


def _message(delivery: Delivery) -> MessagePosted | None:
    if delivery.headers.get(subjects.TYPE) != MessagePosted.TOPIC:
        return None
    try:
        event = decode(delivery)
    except Exception:  # noqa: BLE001  # what cannot be read is not the message that is looked for
        return None
    return event if isinstance(event, MessagePosted) else None
