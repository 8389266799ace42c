"""Proof that the read models are what the log says: a fold of its own, compared conversation by conversation.

The database is read in one snapshot, and the log up to the checkpoints in that snapshot, each read model up to its
own; so it compares exactly while others write. Histories are compared by count and digest, so memory follows the
number of conversations, not of messages. The log itself is checked too: versions and seqs without a hole, no
`client_msg_id` used twice by one sender.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

from domain import events
from domain.events import Event
from projections.differences import Difference, ModelReport, Report
from streams import subjects
from streams.codec import decode
from streams.ports import Log
from streams.public import to_public

PROJECTIONS = ("conversations", "heads", "messages")
_PROJECTION_OF = {
    "conversations": "conversations",
    "members": "conversations",
    "heads": "heads",
    "messages": "messages",
    "changes": "messages",
}
_POLL_S = 0.05
_ROWS_A_FETCH = 2_000
PREVIEW_CHARACTERS = 140

_to_json = msgspec.json.Encoder().encode

# In the order of each model's key, with the columns that `Expected` digests, in its order.
_ROWS = {
    "conversations": "SELECT conversation_id, kind, name, settings, created_by, created_at, member_count "
    "FROM conversations",
    "members": "SELECT conversation_id, user_id, role, joined_seq, joined_at FROM members",
    "heads": "SELECT conversation_id, version, sequence, updated_at, last_seq, last_message_id, last_sender_id, "
    "last_message_at, preview FROM heads",
    "messages": "SELECT conversation_id, seq, created_at, version, sequence, message_id, sender_id, client_msg_id, "
    "reply_to, body, mentions FROM messages ORDER BY conversation_id, seq",
    "changes": "SELECT conversation_id, version, occurred_at, sequence, type, actor_id, data "
    "FROM changes ORDER BY conversation_id, version",
}


class CannotCompare(Exception):
    """There is nothing to compare with: a server or a schema is missing, or the projections do not run."""


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


async def verify(log: Log, postgres_url: str, *, partitions: int, wait_s: float, family: str = subjects.CONV) -> Report:
    """Compare log and read models.

    Args:
        wait_s: how long the read models may take to reach the log's end as it is now; what they have not
            reached by then is reported, and the comparison made as far as they are.

    Raises:
        CannotCompare: Postgres or the schema is missing, or a projection has never run.
        LogUnavailable: the log cannot be read.
    """
    streams = [subjects.stream(family, partition) for partition in range(partitions)]
    ends = [await log.last_sequence(stream) for stream in streams]
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            reached = await _wait(lambda: _checkpoints(connection, partitions), ends, wait_s)
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            async with connection.transaction():
                checkpoints = await _checkpoints(connection, partitions)
                folds = [await _fold(log, stream, at) for stream, at in zip(streams, checkpoints, strict=True)]
                models = [await _compare(connection, model, folds) for model in _ROWS]
    except psycopg.Error as error:
        raise CannotCompare(f"Postgres: {' '.join(str(error).split())}") from error
    behind = [] if reached else [Difference("checkpoints", None, f"not at the log's end after {wait_s:g} s")]
    return Report(
        events=sum(fold.events for fold in folds),
        conversations=sum(len(fold.conversations) for fold in folds),
        models=models,
        faults=[*behind, *(fault for fold in folds for fault in fold.faults)],
    )


async def _wait(checkpoints: Callable[[], Awaitable[list[dict[str, int]]]], ends: list[int], wait_s: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    while any(min(at.values()) < end for at, end in zip(await checkpoints(), ends, strict=True)):
        if clock() > deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def _checkpoints(connection: psycopg.AsyncConnection[Any], partitions: int) -> list[dict[str, int]]:
    cursor = await connection.execute("SELECT partition, projection, sequence FROM checkpoints")
    found = {(partition, projection): sequence for partition, projection, sequence in await cursor.fetchall()}
    try:
        return [{name: found[partition, name] for name in PROJECTIONS} for partition in range(partitions)]
    except KeyError as missing:
        partition, projection = missing.args[0]
        raise CannotCompare(f"the projection {projection} has never run on partition {partition}") from None


async def _fold(log: Log, stream: str, checkpoints: dict[str, int]) -> LogFold:
    fold = LogFold(checkpoints)
    async for delivery in log.read(stream, up_to_sequence=max(checkpoints.values())):
        try:
            event = decode(delivery)
        except Exception as error:  # noqa: BLE001  # whatever it is that cannot be read is to be reported
            fold.faults.append(Difference("log", None, f"{stream} sequence {delivery.sequence}: {error!r}"))
        else:
            fold.add(delivery.sequence, event)
    return fold


async def _compare(connection: psycopg.AsyncConnection[Any], model: str, folds: list[LogFold]) -> ModelReport:
    expected = {id_: digest for fold in folds for id_, digest in fold.expected(model)}
    report = ModelReport(model, conversations=len(expected), rows=sum(digest.count for digest in expected.values()))
    async for id_, digest in _found(connection, model):
        wanted = expected.pop(id_, Digest())
        if digest != wanted:
            report.differences.append(Difference(model, id_, _what(wanted, digest)))
    report.differences += [Difference(model, id_, _what(wanted, Digest())) for id_, wanted in expected.items()]
    return report


def _what(wanted: Digest, found: Digest) -> str:
    if wanted.count != found.count:
        return f"{wanted.count} rows in the log, {found.count} in the read model"
    return f"{wanted.count} rows, with another content"


async def _found(connection: psycopg.AsyncConnection[Any], model: str) -> AsyncIterator[tuple[int, Digest]]:
    """The digest of each conversation's rows in the database. Only what is unordered is held whole."""
    digests: dict[int, Digest] = {}
    ordered = model in ("messages", "changes")
    async with connection.cursor(f"verify_{model}") as cursor:
        cursor.itersize = _ROWS_A_FETCH
        await cursor.execute(_ROWS[model])
        async for row in cursor:
            row = tuple(value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)
            digest = digests.setdefault(row[0], Digest())
            if ordered:
                digest.add_next(row)
            else:
                digest.add(row)
    for item in digests.items():
        yield item
