"""The `messages` and `changes` read models: history, gap fill, and the receipts of messages long ago.

`changes` holds every public event of a conversation with its `data` as the JSON that push sends.
"""

from collections.abc import Sequence
from itertools import starmap
from typing import Any

import msgspec
from psycopg.errors import UniqueViolation

from domain.events import OF_CONVERSATIONS, Event, MessagePosted
from projections import tables
from projections.months import ensure_months
from projections.projection import Connection, LoggedEvent
from projections.staging import Staging
from streams.public import public_data

_to_json = msgspec.json.Encoder().encode

_PUBLIC = frozenset(OF_CONVERSATIONS)


class MessagesProjection:
    """Rows are only ever added: an event that was stored is stored for good."""

    name = "messages"
    version = 1

    def __init__(self) -> None:
        self._messages = Staging(tables.messages)
        self._changes = Staging(tables.changes)

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Makes the partition of a month that the batch is the first to touch."""
        changes = [logged for logged in batch if type(logged.event) in _PUBLIC]
        if not changes:
            return
        messages = [(sequence, event) for sequence, event in changes if isinstance(event, MessagePosted)]
        months = {(event.timestamp.year, event.timestamp.month): event.timestamp for _, event in changes}
        await ensure_months(connection, (tables.messages, tables.changes), months.values())
        try:
            async with connection.transaction():
                await self._messages.add(connection, starmap(_message_row, messages))
                await self._changes.add(connection, starmap(_change_row, changes))
        except UniqueViolation:  # rare: the checkpoint keeps repeats away
            await self._messages.add_missing(connection, starmap(_message_row, messages))
            await self._changes.add_missing(connection, starmap(_change_row, changes))


def _message_row(sequence: int, event: MessagePosted) -> tuple[Any, ...]:
    return (
        int(event.originator_id),
        event.seq,
        event.timestamp,
        event.originator_version,
        sequence,
        event.message_id,
        event.actor_id,
        event.client_msg_id,
        event.reply_to,
        _to_json(event.body).decode(),
        _to_json(event.mentions).decode() if event.mentions else "[]",
    )


def _change_row(sequence: int, event: Event) -> tuple[Any, ...]:
    return (
        int(event.originator_id),
        event.originator_version,
        event.timestamp,
        sequence,
        event.TOPIC,
        event.actor_id,
        public_data(event).decode(),
    )
