"""The `conversations`, `members` and `departures` read models: what a conversation is, and who is in it since when."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import msgspec

from domain import events
from domain.events import Event
from projections import tables
from projections.projection import Connection, LoggedEvent
from projections.staging import Staging, arrays

_to_json = msgspec.json.Encoder().encode

_MERGE_CONVERSATIONS = """
    INSERT INTO conversations ({columns}) SELECT {columns} FROM {staged}
    ON CONFLICT (conversation_id) DO UPDATE SET
        name = excluded.name, settings = excluded.settings, updated_at = excluded.updated_at,
        member_count = excluded.member_count, version = excluded.version"""

# A membership that began before this batch is still in `members`, which is why this comes before they are merged. One
# that is nowhere began with an event that could not be applied: who leaves is told of the leaving alone.
_MERGE_DEPARTURES = """
    INSERT INTO departures (user_id, conversation_id, joined_version, left_version, left_sequence)
    SELECT d.user_id, d.conversation_id, coalesce(d.joined_version, m.joined_version, d.left_version),
        d.left_version, d.left_sequence
    FROM unnest(%b::int8[], %b::text[], %b::int8[], %b::int8[], %b::int8[])
        AS d (conversation_id, user_id, joined_version, left_version, left_sequence)
    LEFT JOIN members m ON m.conversation_id = d.conversation_id AND m.user_id = d.user_id
    ON CONFLICT (user_id, conversation_id) DO UPDATE SET joined_version = excluded.joined_version,
        left_version = excluded.left_version, left_sequence = excluded.left_sequence"""

# A staged member without a role is gone; one without a joined_seq was there before and only changes role.
_MERGE_MEMBERS = (
    """DELETE FROM members USING {staged} s
       WHERE s.role IS NULL AND members.conversation_id = s.conversation_id AND members.user_id = s.user_id""",
    """UPDATE members SET role = s.role FROM {staged} s
       WHERE s.role IS NOT NULL AND s.joined_seq IS NULL
         AND members.conversation_id = s.conversation_id AND members.user_id = s.user_id""",
    """INSERT INTO members ({columns}) SELECT {columns} FROM {staged} WHERE joined_seq IS NOT NULL
       ON CONFLICT (conversation_id, user_id) DO UPDATE SET
           role = excluded.role, joined_seq = excluded.joined_seq, joined_at = excluded.joined_at,
           joined_version = excluded.joined_version, joined_sequence = excluded.joined_sequence,
           posted_seq = excluded.posted_seq""",
)

# What was posted before the present membership does not count, so a batch may hold messages of several memberships.
_POSTED = """
    UPDATE members SET posted_seq = p.seq
    FROM unnest(%b::int8[], %b::text[], %b::int8[]) AS p (conversation_id, user_id, seq)
    WHERE members.conversation_id = p.conversation_id AND members.user_id = p.user_id
      AND p.seq >= members.joined_seq AND p.seq > members.posted_seq"""


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
    """A member as this batch leaves them; what only their joining knows is set if they joined in it."""

    role: str | None
    joined_seq: int | None = None
    joined_at: datetime | None = None
    joined_version: int | None = None
    joined_sequence: int | None = None

    def row(self, conversation_id: int, user_id: str) -> tuple[Any, ...]:
        joined = (self.joined_seq, self.joined_at, self.joined_version, self.joined_sequence)
        return (conversation_id, user_id, self.role, *joined, 0)


_Key = tuple[int, str]  # a conversation and a user


class ConversationsProjection:
    """Folds all that is not a message. Rows are read, folded in Python in log order, and written back whole.

    Of messages only their senders' `posted_seq` is kept: one statement a batch, which reads nothing before.
    """

    name = "conversations"
    version = 1

    def __init__(self) -> None:
        self._conversations = Staging(tables.conversations)
        self._members = Staging(tables.members)

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Repeats are told by the version, those of messages by the seq."""
        relevant: list[LoggedEvent] = []
        posted: dict[tuple[str, str], int] = {}
        for logged in batch:
            event = logged.event
            if isinstance(event, events.MessagePosted):
                posted[event.originator_id, event.actor_id] = event.seq
            elif isinstance(event, _FOLDED):
                relevant.append(logged)
        if relevant:
            await self._merge(connection, relevant)
        if posted:
            rows = [(int(conversation_id), user_id, seq) for (conversation_id, user_id), seq in posted.items()]
            # Never prepared: a plan made while `members` is small reads all of it, and would be kept as it grows.
            await connection.execute(_POSTED, arrays(rows), prepare=False)

    async def _merge(self, connection: Connection, relevant: Sequence[LoggedEvent]) -> None:
        fold = _Fold(await self._read(connection, {int(event.originator_id) for _, event in relevant}))
        for sequence, event in relevant:
            fold.add(sequence, event)
        staged = self._conversations
        await staged.fill(connection, [astuple(row) for row in fold.rows.values()])
        await connection.execute(_MERGE_CONVERSATIONS.format(columns=staged.columns, staged=staged.name))
        if fold.departures:
            rows = [(*key, *departure) for key, departure in fold.departures.items()]
            await connection.execute(_MERGE_DEPARTURES, arrays(rows), prepare=False)
        if fold.members:
            staged = self._members
            await staged.fill(connection, [member.row(*key) for key, member in fold.members.items()])
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


class _Fold:
    """A batch, folded on the rows that its conversations had before.

    Attributes:
        departures: the last of each user: when that membership began, if in this batch, and when it ended.
    """

    def __init__(self, rows: dict[int, _Row]) -> None:
        self.rows = rows
        self.members: dict[_Key, _Member] = {}
        self.departures: dict[_Key, tuple[int | None, int, int]] = {}

    def add(self, sequence: int, event: Event) -> None:
        """Take the next event, unless the rows have it already."""
        conversation_id, version = int(event.originator_id), event.originator_version
        row = self.rows.get(conversation_id)
        if row is not None and version <= row.version:
            return
        if isinstance(event, events.ConversationCreated):
            self.rows[conversation_id] = _created(event)
            for user_id, role in event.members.items():
                self.members[conversation_id, user_id] = _Member(role, 1, event.timestamp, version, sequence)
            return
        if row is None:
            raise CreationMissing(f"conversation {conversation_id} is not in the read model")
        match event:
            case events.ConversationUpdated():
                row.name, row.settings = event.name, _to_json(event.settings).decode()
            case events.MemberAdded():
                member = _Member(event.role, event.joined_seq, event.timestamp, version, sequence)
                self.members[conversation_id, event.user_id] = member
                row.member_count += 1
            case events.MemberRemoved():
                key = (conversation_id, event.user_id)
                before = self.members.get(key)
                self.departures[key] = (None if before is None else before.joined_version, version, sequence)
                self.members[key] = _Member(None)
                row.member_count -= 1
            case events.MemberUpdated():
                self.members.setdefault((conversation_id, event.user_id), _Member(None)).role = event.role
        row.version, row.updated_at = version, event.timestamp


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
