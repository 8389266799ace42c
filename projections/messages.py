"""The `messages` and `changes` read models: history, gap fill, and the receipts of messages long ago.

`changes` holds every public event of a conversation with its `data` as the JSON that push sends.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from domain.events import Event, MessagePosted
from projections import tables
from projections.months import ensure_months
from projections.projection import Connection, LoggedEvent
from projections.staging import Staging
from streams.public import message_of, to_public

_to_json = msgspec.json.Encoder().encode


class MessagesProjection:
    """Rows are only ever added: an event that was stored is stored for good."""

    name = "messages"

    def __init__(self) -> None:
        self._messages = Staging(tables.messages)
        self._changes = Staging(tables.changes)

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Makes the partition of a month that the batch is the first to touch."""
        messages: list[tuple[Any, ...]] = []
        changes: list[tuple[Any, ...]] = []
        for sequence, event in batch:
            if isinstance(event, MessagePosted):
                messages.append(_message_row(sequence, event))
                # The very JSON of `to_public(event).data`, without the dict in between.
                changes.append(_change_row(sequence, event, _to_json(message_of(event))))
            elif (public := to_public(event)) is not None:
                changes.append(_change_row(sequence, event, _to_json(public.data)))
        if changes:
            moments = {(row[_MOMENT].year, row[_MOMENT].month): row[_MOMENT] for row in changes}
            await ensure_months(connection, (tables.messages, tables.changes), moments.values())
            await self._changes.add(connection, changes)
        if messages:
            await self._messages.add(connection, messages)


_MOMENT = 2  # the column of either row that places it in a month


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
        _to_json(event.mentions).decode(),
    )


def _change_row(sequence: int, event: Event, data: bytes) -> tuple[Any, ...]:
    return (
        int(event.originator_id),
        event.originator_version,
        event.timestamp,
        sequence,
        event.TOPIC,
        event.actor_id,
        data.decode(),
    )
