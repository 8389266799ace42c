"""What the read models must hold, folded from the log by itself: verification's own opinion.

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
from streams.public import to_public

PREVIEW_CHARACTERS = 140

_to_json = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Digest:
    """A running digest of rows, and how many they were."""

    count: int = 0
    value: int = 0

    def add_next(self, row: tuple[Any, ...]) -> None:
        """Take the next row of an ordered history."""
        self.value = _hash(self.value.to_bytes(16, "big"), row)
        self.count += 1

    def add(self, row: tuple[Any, ...]) -> None:
        """Take a row of a set."""
        self.value ^= _hash(b"", row)
        self.count += 1


def _hash(before: bytes, row: tuple[Any, ...]) -> int:
    digest = hashlib.blake2b(before, digest_size=16)
    digest.update(_to_json(row))
    return int.from_bytes(digest.digest(), "big")


@dataclass(slots=True)
class _Conversation:
    """What the log says of one conversation, up to each read model's checkpoint."""

    created: tuple[Any, ...] = ()
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    members: dict[str, tuple[str, int, datetime]] = field(default_factory=dict)
    head: tuple[Any, ...] = ()
    last_message: tuple[Any, ...] = (0, None, None, None, None)
    messages: Digest = field(default_factory=Digest)
    changes: Digest = field(default_factory=Digest)
    # of the log itself, not of a read model
    version: int = 0
    seq: int = 0
    sent: set[bytes] = field(default_factory=set)


class LogFold:
    """Folds one partition's log into what its read models must hold. Knows nothing of the projections' code."""

    def __init__(self, checkpoints: dict[str, int]) -> None:
        self.conversations: dict[int, _Conversation] = {}
        self.events = 0
        self.faults: list[Difference] = []
        self._checkpoints = checkpoints

    def add(self, sequence: int, event: Event) -> None:
        """Take the next event."""
        self.events += 1
        public = to_public(event)
        if public is None:
            return
        id_ = int(event.originator_id)
        conversation = self.conversations.setdefault(id_, _Conversation())
        self._check(id_, conversation, event)
        if sequence <= self._checkpoints["messages"]:
            row = (id_, event.originator_version, event.timestamp, sequence, event.TOPIC, event.actor_id)
            conversation.changes.add_next((*row, _to_json(public.data).decode()))
            if isinstance(event, events.MessagePosted):
                conversation.messages.add_next(_message_row(id_, sequence, event))
        if sequence <= self._checkpoints["heads"]:
            if isinstance(event, events.MessagePosted):
                preview = event.body["text"][:PREVIEW_CHARACTERS]
                conversation.last_message = (event.seq, event.message_id, event.actor_id, event.timestamp, preview)
            conversation.head = (id_, event.originator_version, sequence, event.timestamp)
        if sequence <= self._checkpoints["conversations"]:
            _fold_members(conversation, event)

    def _check(self, id_: int, conversation: _Conversation, event: Event) -> None:
        if event.originator_version != conversation.version + 1:
            found = f"version {event.originator_version} follows {conversation.version}"
            self.faults.append(Difference("log", id_, found))
        conversation.version = event.originator_version
        if not isinstance(event, events.MessagePosted):
            return
        if event.seq != conversation.seq + 1:
            self.faults.append(Difference("log", id_, f"seq {event.seq} follows {conversation.seq}"))
        conversation.seq = event.seq
        # 16 bytes rather than the strings: this set is as long as the history.
        sent = hashlib.blake2b(f"{event.actor_id}\0{event.client_msg_id}".encode(), digest_size=16).digest()
        if sent in conversation.sent:
            self.faults.append(Difference("log", id_, f"seq {event.seq} repeats a client_msg_id of its sender"))
        conversation.sent.add(sent)

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
            for user_id, member in conversation.members.items():
                digest.add((id_, user_id, *member))
        case "conversations" if conversation.created:
            kind, created_by, created_at = conversation.created
            settings = _to_json(conversation.settings).decode()
            size = len(conversation.members)
            digest.add((id_, kind, conversation.name, settings, created_by, created_at, size))
    return digest


def _message_row(id_: int, sequence: int, event: events.MessagePosted) -> tuple[Any, ...]:
    where = (id_, event.seq, event.timestamp, event.originator_version, sequence, event.message_id)
    what = (event.actor_id, event.client_msg_id, event.reply_to)
    return (*where, *what, _to_json(event.body).decode(), _to_json(event.mentions).decode())


def _fold_members(conversation: _Conversation, event: Event) -> None:
    match event:
        case events.ConversationCreated():
            conversation.created = (event.kind, event.actor_id, event.timestamp)
            conversation.name, conversation.settings = event.name, event.settings
            conversation.members = {user: (role, 1, event.timestamp) for user, role in event.members.items()}
        case events.ConversationUpdated():
            conversation.name, conversation.settings = event.name, event.settings
        case events.MemberAdded():
            conversation.members[event.user_id] = (event.role, event.joined_seq, event.timestamp)
        case events.MemberUpdated():
            _, joined_seq, joined_at = conversation.members[event.user_id]
            conversation.members[event.user_id] = (event.role, joined_seq, joined_at)
        case events.MemberRemoved():
            conversation.members.pop(event.user_id, None)
