"""The `markers` and `own_settings` read models: how far each user has read, and how they keep each conversation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from domain import events
from projections.projection import Connection, LoggedEvent
from projections.staging import arrays

# A marker only moves forward here. The log may move it backwards, when the user's aggregate had forgotten it (it keeps
# those that moved last); then nothing has changed, and the row stays.
_MERGE_MARKERS = """
    INSERT INTO markers (conversation_id, user_id, read_seq, read_at, sequence)
    SELECT * FROM unnest(%b::int8[], %b::text[], %b::int8[], %b::timestamptz[], %b::int8[])
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
        read_seq = excluded.read_seq, read_at = excluded.read_at, sequence = excluded.sequence
    WHERE markers.read_seq < excluded.read_seq"""

_MERGE_SETTINGS = """
    INSERT INTO own_settings (conversation_id, user_id, muted_until, pinned, hidden, occurred_at, sequence)
    SELECT * FROM unnest(%b::int8[], %b::text[], %b::timestamptz[], %b::bool[], %b::bool[], %b::timestamptz[],
        %b::int8[])
    ON CONFLICT (user_id, conversation_id) DO UPDATE SET
        muted_until = excluded.muted_until, pinned = excluded.pinned, hidden = excluded.hidden,
        occurred_at = excluded.occurred_at, sequence = excluded.sequence
    WHERE own_settings.sequence < excluded.sequence"""

_Key = tuple[int, str]  # a conversation and a user


class MarkersProjection:
    """Keeps what each user has of each conversation for themselves. A batch costs one statement a table it touches."""

    name = "markers"
    version = 1

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Repeats are told by the seq of a marker, and by the sequence of settings."""
        markers: dict[_Key, tuple[int, str, int, datetime, int]] = {}
        settings: dict[_Key, tuple[Any, ...]] = {}
        for sequence, event in batch:
            if isinstance(event, events.ReadMoved):
                key = (event.conversation_id, event.originator_id)
                if (before := markers.get(key)) is None or before[2] < event.seq:
                    markers[key] = (*key, event.seq, event.timestamp, sequence)
            elif isinstance(event, events.SettingsUpdated):
                key = (event.conversation_id, event.originator_id)
                flags = (event.muted_until, event.pinned, event.hidden)
                settings[key] = (*key, *flags, event.timestamp, sequence)
        if markers:
            await connection.execute(_MERGE_MARKERS, arrays(markers.values()), prepare=True)
        if settings:
            await connection.execute(_MERGE_SETTINGS, arrays(settings.values()), prepare=True)
