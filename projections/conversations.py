"""The `conversations` and `members` read models: what a conversation is, and who is in it since when."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

import msgspec

from domain import events
from domain.events import Event
from projections import tables
from projections.projection import Connection, LoggedEvent
from projections.staging import Staging

_to_json = msgspec.json.Encoder().encode

_MERGE_CONVERSATIONS = """
    INSERT INTO conversations ({columns}) SELECT {columns} FROM {staged}
    ON CONFLICT (conversation_id) DO UPDATE SET
        name = excluded.name, settings = excluded.settings, updated_at = excluded.updated_at,
        member_count = excluded.member_count, version = excluded.version"""

# A staged member without a role is gone; one without a joined_seq was there before and only changes role.
_MERGE_MEMBERS = (
    """DELETE FROM members USING {staged} s
       WHERE s.role IS NULL AND members.conversation_id = s.conversation_id AND members.user_id = s.user_id""",
    """UPDATE members SET role = s.role FROM {staged} s
       WHERE s.role IS NOT NULL AND s.joined_seq IS NULL
         AND members.conversation_id = s.conversation_id AND members.user_id = s.user_id""",
    """INSERT INTO members ({columns}) SELECT {columns} FROM {staged} WHERE joined_seq IS NOT NULL
       ON CONFLICT (conversation_id, user_id) DO UPDATE SET
           role = excluded.role, joined_seq = excluded.joined_seq, joined_at = excluded.joined_at""",
)


class CreationMissing(LookupError):
    """An event of a conversation that the read model has not seen created: its first event could not be applied."""


@dataclass(slots=True)
class _Row:
    conversation_id: int
    kind: str
    name: str | None
    settings: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    member_count: int
    version: int


@dataclass(slots=True)
class _Member:
    role: str | None
    joined_seq: int | None = None
    joined_at: datetime | None = None


class ConversationsProjection:
    """Folds all that is not a message. Rows are read, folded in Python in log order, and written back whole."""

    name = "conversations"

    def __init__(self) -> None:
        self._conversations = Staging(tables.conversations)
        self._members = Staging(tables.members)

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Repeats are told by the version."""
        relevant = [event for _, event in batch if isinstance(event, _FOLDED)]
        if not relevant:
            return
        rows = await self._read(connection, {int(event.originator_id) for event in relevant})
        members: dict[tuple[int, str], _Member] = {}
        for event in relevant:
            _fold(event, rows, members)
        staged = self._conversations
        await staged.fill(connection, [astuple(row) for row in rows.values()])
        await connection.execute(_MERGE_CONVERSATIONS.format(columns=staged.columns, staged=staged.name))
        if members:
            staged = self._members
            await staged.fill(connection, [(*key, m.role, m.joined_seq, m.joined_at) for key, m in members.items()])
            for statement in _MERGE_MEMBERS:
                await connection.execute(statement.format(columns=staged.columns, staged=staged.name))

    async def _read(self, connection: Connection, ids: set[int]) -> dict[int, _Row]:
        cursor = await connection.execute(
            f"SELECT {self._conversations.columns} FROM conversations WHERE conversation_id = ANY(%s)",
            (list(ids),),
            binary=True,
        )
        return {row[0]: _Row(*row) for row in await cursor.fetchall()}


_FOLDED = (
    events.ConversationCreated,
    events.ConversationUpdated,
    events.MemberAdded,
    events.MemberRemoved,
    events.MemberUpdated,
)


def _fold(event: Event, rows: dict[int, _Row], members: dict[tuple[int, str], _Member]) -> None:
    conversation_id = int(event.originator_id)
    row = rows.get(conversation_id)
    if row is not None and event.originator_version <= row.version:
        return
    if isinstance(event, events.ConversationCreated):
        rows[conversation_id] = _created(event)
        for user_id, role in event.members.items():
            members[conversation_id, user_id] = _Member(role, 1, event.timestamp)
        return
    if row is None:
        raise CreationMissing(f"conversation {conversation_id} is not in the read model")
    match event:
        case events.ConversationUpdated():
            row.name, row.settings = event.name, _to_json(event.settings).decode()
        case events.MemberAdded():
            members[conversation_id, event.user_id] = _Member(event.role, event.joined_seq, event.timestamp)
            row.member_count += 1
        case events.MemberRemoved():
            members[conversation_id, event.user_id] = _Member(None)
            row.member_count -= 1
        case events.MemberUpdated():
            members.setdefault((conversation_id, event.user_id), _Member(None)).role = event.role
    row.version, row.updated_at = event.originator_version, event.timestamp


def _created(event: events.ConversationCreated) -> _Row:
    return _Row(
        conversation_id=int(event.originator_id),
        kind=event.kind,
        name=event.name,
        settings=_to_json(event.settings).decode(),
        created_by=event.actor_id,
        created_at=event.timestamp,
        updated_at=event.timestamp,
        member_count=len(event.members),
        version=event.originator_version,
    )
