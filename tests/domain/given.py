"""Given events, when a command, then events: the form of the tests of aggregates.

`given(created(members=["mia"]), posted("mia"))` folds those events; the commands of the `Story` it returns decide
on that state; `then()` is what they decided.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

import pytest

from domain import events
from domain.conversations import Conversation
from domain.errors import DomainError
from domain.events import Event
from domain.ids import IdSequence, compose, slot_of
from domain.members import Kind, Role, default_settings
from domain.messages import Receipt
from streams import codec, subjects
from streams.codec import Metadata

SLOT = 37
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ID = compose(1_795_435_200_000, SLOT, 0)  # of START
OWNER, ADMIN = "olga", "adam"

_ENVELOPE = {"originator_id", "originator_version", "timestamp", "actor_id", "originator_topic"}

Decided = tuple[str, dict[str, Any]]  # a type and the event's own fields


class Fact(NamedTuple):
    """An event before it has a place in a history."""

    kind: type[Event]
    actor_id: str
    fields: dict[str, Any]


def created(
    kind: Kind = "group",
    *,
    members: Sequence[str] = (),
    name: str | None = None,
    settings: dict[str, str] | None = None,
) -> Fact:
    """Of a conversation of `OWNER` (a plain member of a direct one), `ADMIN` in all but direct ones, and members."""
    roles: dict[str, str] = {OWNER: "member"} if kind == "direct" else {OWNER: "owner", ADMIN: "admin"}
    roles |= dict.fromkeys(members, "member")
    chosen = {**default_settings(kind).as_dict(), **(settings or {})}
    return Fact(
        events.ConversationCreated,
        OWNER,
        {"originator_topic": Conversation.TOPIC, "kind": kind, "name": name, "members": roles, "settings": chosen},
    )


def posted(sender: str, client_msg_id: str, text: str = "hello", *, seq: int = 1) -> Fact:
    """A message; its id is made of its seq."""
    return Fact(
        events.MessagePosted,
        sender,
        {
            "seq": seq,
            "message_id": ID + seq,
            "client_msg_id": client_msg_id,
            "body": {"type": "text", "text": text},
            "reply_to": None,
            "mentions": [],
        },
    )


def added(user_id: str, *, joined_seq: int = 1) -> Fact:
    """A member put in by the owner."""
    return Fact(events.MemberAdded, OWNER, {"user_id": user_id, "role": "member", "joined_seq": joined_seq})


def removed(user_id: str) -> Fact:
    """A member put out by the owner."""
    return Fact(events.MemberRemoved, OWNER, {"user_id": user_id})


def stored_and_read(event: Event) -> Event:
    """The event as it comes back from the log: encoded to a record, and decoded."""
    of_user = isinstance(event, (*events.OF_USERS, events.UserCreated))
    subject = subjects.aggregate(subjects.USER if of_user else subjects.CONV, 0, event.originator_id)
    record = codec.encode(event, subject, Metadata())
    return codec.decode_parts(record.subject, record.headers, record.data)


def folded(history: Sequence[Event]) -> Conversation:
    """The state that a history of events makes."""
    aggregate: Any = None  # before its first event there is no aggregate
    for event in history:
        aggregate = event.mutate(aggregate)
    return cast(Conversation, aggregate)


def own_fields(event: Event) -> dict[str, Any]:
    """What an event says beyond whose, when and by whom."""
    return {field.name: getattr(event, field.name) for field in fields(event) if field.name not in _ENVELOPE}


class Story:
    """A conversation that decides commands, a second apart, with ids of its own slot."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._ids = IdSequence()
        self._now = max(conversation.modified_on, START)

    @property
    def now(self) -> datetime:
        """The time of the newest command."""
        return self._now

    def post(
        self,
        sender: str,
        client_msg_id: str,
        text: str = "hello",
        *,
        reply_to: int | None = None,
        mentions: Sequence[str] = (),
        blocked: bool = False,
        looked_up: Receipt | None = None,
        was_looked_up: bool = False,
    ) -> tuple[Receipt, bool]:
        """When somebody posts."""
        now = self._tick()
        return self.conversation.post_message(
            actor_id=sender,
            client_msg_id=client_msg_id,
            text=text,
            reply_to=reply_to,
            mentions=list(mentions),
            new_id=lambda: self._ids.next(slot_of(int(self.conversation.id)), round(now.timestamp() * 1000)),
            now=now,
            blocked=blocked,
            looked_up=looked_up,
            was_looked_up=was_looked_up,
        )

    def update(self, actor: str, *, name: str | None = None, **settings: Any) -> None:
        """When somebody renames, or changes settings."""
        self.conversation.update(actor_id=actor, name=name, settings=settings, now=self._tick())

    def change(
        self,
        actor: str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        roles: dict[str, Role] | None = None,
    ) -> None:
        """When somebody changes the members."""
        self.conversation.change_members(
            actor_id=actor, add=list(add), remove=list(remove), roles=roles or {}, now=self._tick()
        )

    def then(self) -> list[Decided]:
        """What was decided since the last call: all of it, in order."""
        return [(event.TOPIC, own_fields(event)) for event in self.take()]

    def take(self) -> list[Event]:
        """The same, as events."""
        return [cast(Event, event) for event in self.conversation.collect_events()]

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


def given(*facts: Fact) -> Story:
    """A conversation with this history, numbered and a second apart."""
    history = [
        fact.kind(
            originator_id=str(ID),
            originator_version=version,
            timestamp=START + timedelta(seconds=version),
            actor_id=fact.actor_id,
            **fact.fields,
        )
        for version, fact in enumerate(facts, 1)
    ]
    return Story(folded(history))


def refused(kind: type[DomainError], field: str | None = None) -> Any:
    """Expect a refusal of exactly this kind and field."""
    return pytest.raises(kind, check=lambda error: type(error) is kind and error.field == field)
