"""What the read models of conversations must hold, folded from the log by itself: verification's own opinion.

It knows the tables' columns and nothing of the projections' code. Histories are kept as counts and digests.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from domain import events
from domain.events import Event
from projections.differences import Difference
from projections.digests import Digest
from streams.public import PublicEvent, to_public

PREVIEW_CHARACTERS = 140

_to_json = msgspec.json.Encoder().encode


PROJECTIONS = ("conversations", "heads", "messages")  # what feeds these read models

# Of each, the key it is compared by, then the columns that are digested, in their order.
ROWS = {
    "conversations": "SELECT conversation_id, kind, name, settings, created_by, created_at, member_count "
    "FROM conversations",
    "members": "SELECT conversation_id, user_id, role, joined_seq, joined_at, joined_version, joined_sequence, "
    "posted_seq FROM members",
    "departures": "SELECT conversation_id, user_id, joined_version, left_version, left_sequence FROM departures",
    "heads": "SELECT conversation_id, version, sequence, updated_at, last_seq, last_message_id, last_sender_id, "
    "last_message_at, preview FROM heads",
    "messages": "SELECT conversation_id, seq, created_at, version, sequence, message_id, sender_id, client_msg_id, "
    "reply_to, body, mentions FROM messages ORDER BY conversation_id, seq",
    "changes": "SELECT conversation_id, version, occurred_at, sequence, type, actor_id, data "
    "FROM changes ORDER BY conversation_id, version",
}


@dataclass(slots=True)
class _Member:
    role: str
    joined_seq: int
    joined_at: datetime
    joined_version: int
    joined_sequence: int
    posted_seq: int = 0


@dataclass(slots=True)
class _Conversation:
    """What the log says of one conversation, up to each read model's checkpoint."""

    created: tuple[Any, ...] = ()
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    members: dict[str, _Member] = field(default_factory=dict)
    departures: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    head: tuple[Any, ...] = ()
    last_message: tuple[Any, ...] = (0, None, None, None, None)
    messages: Digest = field(default_factory=Digest)
    changes: Digest = field(default_factory=Digest)
    # of the log itself, not of a read model
    version: int = 0
    seq: int = 0
    sent: set[bytes] = field(default_factory=set)


class ConversationsFold:
    """Folds one partition's log into what its read models must hold. See `verification.LogFold`."""

    def __init__(self, checkpoints: dict[str, int]) -> None:
        self.conversations: dict[int, _Conversation] = {}
        self.events = 0
        self.faults: list[Difference] = []
        self._checkpoints = checkpoints
        self._internal: dict[str, int] = {}  # versions of reservations and pairs, of which no read model is kept

    def __len__(self) -> int:
        return len(self.conversations)

    def add(self, sequence: int, event: Event) -> None:
        """Take the next event."""
        self.events += 1
        public = to_public(event)
        if public is None:
            self._check_internal(event)
            return
        id_ = int(event.originator_id)
        conversation = self.conversations.setdefault(id_, _Conversation())
        self._check(id_, conversation, event)
        if sequence <= self._checkpoints["messages"]:
            conversation.changes.add_next(change_row(sequence, event, public))
            if isinstance(event, events.MessagePosted):
                conversation.messages.add_next(message_row(sequence, event))
        if sequence <= self._checkpoints["heads"]:
            if isinstance(event, events.MessagePosted):
                preview = event.body["text"][:PREVIEW_CHARACTERS]
                conversation.last_message = (event.seq, event.message_id, event.actor_id, event.timestamp, preview)
            conversation.head = (id_, event.originator_version, sequence, event.timestamp)
        if sequence <= self._checkpoints["conversations"]:
            _fold_members(conversation, sequence, event)

    def _check(self, id_: int, conversation: _Conversation, event: Event) -> None:
        if event.originator_version != conversation.version + 1:
            found = f"version {event.originator_version} follows {conversation.version}"
            self.faults.append(Difference("log", found, conversation_id=id_))
        conversation.version = event.originator_version
        if not isinstance(event, events.MessagePosted):
            return
        if event.seq != conversation.seq + 1:
            found = f"seq {event.seq} follows {conversation.seq}"
            self.faults.append(Difference("log", found, conversation_id=id_))
        conversation.seq = event.seq
        # 16 bytes rather than the strings: this set is as long as the history.
        sent = hashlib.blake2b(f"{event.actor_id}\0{event.client_msg_id}".encode(), digest_size=16).digest()
        if sent in conversation.sent:
            found = f"seq {event.seq} repeats a client_msg_id of its sender"
            self.faults.append(Difference("log", found, conversation_id=id_))
        conversation.sent.add(sent)

    def _check_internal(self, event: Event) -> None:
        id_, version = event.originator_id, event.originator_version
        before = self._internal.get(id_, 0)
        if version != before + 1:
            self.faults.append(Difference("log", f"version {version} of {id_} follows {before}"))
        self._internal[id_] = version

    def expected(self, model: str) -> Iterator[tuple[int, Digest]]:
        """Of each conversation that has rows in a read model: its id and the digest of those rows."""
        for id_, conversation in self.conversations.items():
            digest = _expected(model, id_, conversation)
            if digest.count:
                yield id_, digest


def _expected(model: str, id_: int, conversation: _Conversation) -> Digest:
    digest = Digest()
    match model:
        case "messages":
            return conversation.messages
        case "changes":
            return conversation.changes
        case "heads" if conversation.head:
            digest.add((*conversation.head, *conversation.last_message))
        case "members":
            for user_id, m in conversation.members.items():
                joined = (m.joined_seq, m.joined_at, m.joined_version, m.joined_sequence)
                digest.add((id_, user_id, m.role, *joined, m.posted_seq))
        case "departures":
            for user_id, departure in conversation.departures.items():
                digest.add((id_, user_id, *departure))
        case "conversations" if conversation.created:
            kind, created_by, created_at = conversation.created
            settings = _to_json(conversation.settings).decode()
            size = len(conversation.members)
            digest.add((id_, kind, conversation.name, settings, created_by, created_at, size))
    return digest


def change_row(sequence: int, event: Event, public: PublicEvent) -> tuple[Any, ...]:
    """The row of an event in `changes`, as `ROWS` gives it."""
    at = (int(event.originator_id), event.originator_version, event.timestamp, sequence)
    return (*at, event.TOPIC, event.actor_id, _to_json(public.data).decode())


def message_row(sequence: int, event: events.MessagePosted) -> tuple[Any, ...]:
    """The row of a message in `messages`, as `ROWS` gives it."""
    where = (int(event.originator_id), event.seq, event.timestamp, event.originator_version, sequence, event.message_id)
    what = (event.actor_id, event.client_msg_id, event.reply_to)
    return (*where, *what, _to_json(event.body).decode(), _to_json(event.mentions).decode())


def _fold_members(conversation: _Conversation, sequence: int, event: Event) -> None:
    members, at, version = conversation.members, event.timestamp, event.originator_version
    match event:
        case events.MessagePosted():
            if member := members.get(event.actor_id):
                member.posted_seq = event.seq
        case events.ConversationCreated():
            conversation.created = (event.kind, event.actor_id, at)
            conversation.name, conversation.settings = event.name, event.settings
            for user_id, role in event.members.items():
                members[user_id] = _Member(role, 1, at, version, sequence)
        case events.ConversationUpdated():
            conversation.name, conversation.settings = event.name, event.settings
        case events.MemberAdded():
            members[event.user_id] = _Member(event.role, event.joined_seq, at, version, sequence)
        case events.MemberUpdated():
            if member := members.get(event.user_id):
                member.role = event.role
        case events.MemberRemoved():
            if member := members.pop(event.user_id, None):
                conversation.departures[event.user_id] = (member.joined_version, version, sequence)
