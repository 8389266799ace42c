"""Histories for tests: events decided by the real aggregate, appended to a log as a writer would."""

from datetime import UTC, datetime, timedelta
from typing import Any

from domain import events
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import compose
from streams import subjects
from streams.codec import Metadata, encode
from streams.ports import Log, Record

STREAM = subjects.stream(subjects.CONV, 0)
USERS = subjects.stream(subjects.USER, 0)
START = datetime(2026, 1, 30, 23, 50, tzinfo=UTC)  # ten minutes before a month begins


class History:
    """A partition in the making. Its clock moves by `step` at each command."""

    def __init__(self, log: Log, *, slot: int = 0, step: timedelta = timedelta(minutes=1)) -> None:
        self.log = log
        self.now = START
        self.conversations: list[Conversation] = []
        self._slot = slot
        self._step = step
        self._ids = 0

    def new_id(self) -> int:
        self._ids += 1
        return compose(round(self.now.timestamp() * 1000), self._slot, self._ids % 4096)

    def create(self, owner: str, *members: str, kind: Any = "group", name: str | None = None) -> Conversation:
        conversation = Conversation.create(
            self.new_id(), actor_id=owner, kind=kind, members=list(members), name=name, settings={}, now=self._tick()
        )
        self.conversations.append(conversation)
        return conversation

    def post(self, conversation: Conversation, sender: str, text: str, **fields: Any) -> None:
        values = {"client_msg_id": f"c{self._ids}", "reply_to": None, "mentions": [], **fields}
        conversation.post_message(actor_id=sender, text=text, new_id=self.new_id, now=self._tick(), **values)

    def change(self, conversation: Conversation, actor: str, **changes: Any) -> None:
        values: dict[str, Any] = {"add": [], "remove": [], "roles": {}, **changes}
        conversation.change_members(actor_id=actor, now=self._tick(), **values)

    def rename(self, conversation: Conversation, actor: str, name: str) -> None:
        conversation.update(actor_id=actor, name=name, settings={}, now=self._tick())

    def records(self) -> list[Record]:
        """What was decided and not yet appended, conversation by conversation."""
        decided: list[Event] = []
        for conversation in self.conversations:
            decided += conversation.collect_events()  # type: ignore[arg-type]
        return [record(event) for event in decided]

    async def append(self) -> int:
        """Append what was decided; the stream's last sequence."""
        return await append(self.log, self.records())

    def _tick(self) -> datetime:
        self.now += self._step
        return self.now


def chat(log: Log, messages: int) -> History:
    history = History(log)
    conversation = history.create("ann", "bob")
    for number in range(messages):
        history.post(conversation, "ann", f"message {number + 1}")
    return history


def record(event: Event) -> Record:
    return encode(event, subjects.aggregate(subjects.CONV, 0, event.originator_id), Metadata())


async def append(log: Log, records: list[Record], stream: str = STREAM) -> int:
    last = await log.last_sequence(stream)
    return await log.append(stream, records, expected_last_sequence=last) if records else last


class UserHistory:
    """The users' partition in the making: facts as they come, each with the next version of its user."""

    def __init__(self, log: Log, *, step: timedelta = timedelta(minutes=1)) -> None:
        self.log = log
        self.now = START
        self._step = step
        self._versions: dict[str, int] = {}
        self._records: list[Record] = []

    def happened(self, user_id: str, what: type[Event], /, **fields: Any) -> None:
        """A fact about a user. The first of all is that there is a user."""
        self.now += self._step
        if user_id not in self._versions:
            self._add(user_id, events.UserCreated, originator_topic="user")
        self._add(user_id, what, **fields)

    def records(self) -> list[Record]:
        """What happened and was not yet appended."""
        records, self._records = self._records, []
        return records

    async def append(self) -> int:
        """Append what happened; the stream's last sequence."""
        return await append(self.log, self.records(), USERS)

    def _add(self, user_id: str, what: type[Event], /, **fields: Any) -> None:
        version = self._versions[user_id] = self._versions.get(user_id, 0) + 1
        event = what(originator_id=user_id, originator_version=version, timestamp=self.now, actor_id=user_id, **fields)
        self._records.append(encode(event, subjects.aggregate(subjects.USER, 0, user_id), Metadata()))
