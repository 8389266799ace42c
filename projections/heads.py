"""The `heads` read model: where each conversation stands, one row a conversation, whatever its history's length."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.events import OF_CONVERSATIONS, Event, MessagePosted
from projections.projection import Connection, LoggedEvent
from projections.staging import arrays

PREVIEW_CHARACTERS = 140  # about two lines of an inbox on a telephone

# One statement and one round trip: a batch touches few conversations, so COPY would not pay for its own.
_MERGE = """
    INSERT INTO heads (conversation_id, version, sequence, updated_at,
        last_seq, last_message_id, last_sender_id, last_message_at, preview)
    SELECT * FROM unnest(%b::int8[], %b::int8[], %b::int8[], %b::timestamptz[],
        %b::int8[], %b::int8[], %b::text[], %b::timestamptz[], %b::text[])
    ON CONFLICT (conversation_id) DO UPDATE SET
        version = excluded.version, sequence = excluded.sequence, updated_at = excluded.updated_at,
        last_seq = greatest(excluded.last_seq, heads.last_seq),
        last_message_id = coalesce(excluded.last_message_id, heads.last_message_id),
        last_sender_id = coalesce(excluded.last_sender_id, heads.last_sender_id),
        last_message_at = coalesce(excluded.last_message_at, heads.last_message_at),
        preview = coalesce(excluded.preview, heads.preview)
    WHERE heads.version < excluded.version"""

_PUBLIC = frozenset(OF_CONVERSATIONS)


@dataclass(slots=True)
class _Head:
    """What a batch says of one conversation: its last event, and its last message if it has one."""

    event: Event
    sequence: int
    message: MessagePosted | None = None


class HeadsProjection:
    """Keeps, for each conversation, its newest version and the newest message's preview."""

    name = "heads"
    version = 1

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Repeats are told by the version."""
        heads: dict[str, _Head] = {}
        for sequence, event in batch:
            head = heads.get(event.originator_id)
            if head is not None:
                head.event, head.sequence = event, sequence
            elif type(event) in _PUBLIC:
                head = heads[event.originator_id] = _Head(event, sequence)
            if head is not None and isinstance(event, MessagePosted):
                head.message = event
        if heads:
            await connection.execute(_MERGE, arrays(map(_row, heads.values())), prepare=True)


def _row(head: _Head) -> tuple[object, ...]:
    event, message = head.event, head.message
    row = (int(event.originator_id), event.originator_version, head.sequence, event.timestamp)
    if message is None:
        return (*row, 0, None, None, None, None)
    preview = message.body["text"][:PREVIEW_CHARACTERS]
    return (*row, message.seq, message.message_id, message.actor_id, message.timestamp, preview)
