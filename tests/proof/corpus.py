"""A corpus: the events of conversations and users over months, made of a real chat, the same for the same plan.

Every conversation says the chat's messages in their order, from a place of its own on, round and round. So what a
message says, who wrote it and what it answers follows from its seq, and all that is to be remembered of five million
are their ids and versions. The events are the domain's own, as its aggregates would have decided them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from domain import events
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import SLOTS, compose, direct_key, pair_key, partition_of, slot_of, user_slot
from domain.members import Kind, default_settings
from domain.pairs import Pair
from domain.reservations import Reservation
from domain.users import User
from streams import subjects
from tests.proof.source import DAY_MS, Source
from tests.proof.told import Told

PEOPLE: Final = 8  # times the nicks of the source: who is `nick` in one conversation is `nick~3` in another
MESSAGES_EACH: Final = 5_000  # of a conversation, on average
DRAWN: Final = 1_000  # conversations at once

# One in so many messages is followed by …; primes, so that they seldom meet.
READS, LEAVES, PROMOTES, RENAMES = 7, 211, 1_999, 2_003
PROFILES, DEVICES, SETTINGS, BLOCKS = 499, 997, 1_009, 4_999


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made.

    Attributes:
        start: the first moment; months of 30 days follow.
    """

    messages: int
    start: datetime
    months: int = 9
    partitions: int = 2
    seed: int = 1

    @property
    def conversations(self) -> int:
        """How many there are, of very different sizes."""
        return max(12, self.messages // MESSAGES_EACH)

    @property
    def days(self) -> int:
        """How many days pass."""
        return self.months * 30


class Made(NamedTuple):
    """An event, and the stream and the subject that it is for."""

    stream: str
    subject: str
    event: Event


class Corpus:
    """Makes the events of a plan.

    Attributes:
        told: the conversations, as far as they were made; in the order they began.
    """

    def __init__(self, plan: Plan, source: Source) -> None:
        self.plan = plan
        self.told: list[Told] = []
        self._source = source
        self._by_number: dict[int, Told] = {}
        self._users: dict[str, int] = {}  # their versions
        self._pairs: dict[str, int] = {}
        self._now = plan.start
        self._now_ms = 0

    def events(self) -> Iterator[Made]:
        """All of them, in the order in which they happened. Once only."""
        dice, plan = random.Random(self.plan.seed), self.plan
        numbers, weights, total = range(plan.conversations), [], 0.0
        for number in numbers:
            total += (number + 1) ** -0.8
            weights.append(total)
        drawn: list[int] = []
        for number in range(plan.messages):
            if not drawn:
                drawn = dice.choices(numbers, cum_weights=weights, k=DRAWN)
            self._tick(number)
            which = drawn.pop()
            told = self._by_number.get(which)
            if told is None:
                told = self._by_number[which] = self._begun(which, dice)
                self.told.append(told)
                yield from self._created(told)
            yield from self._said(told, number)

    def _tick(self, number: int) -> None:
        day, rest = divmod(number * self.plan.days, self.plan.messages)
        moment_ms = day * DAY_MS + self._source.moment_ms(rest / self.plan.messages)
        start_ms = round(self.plan.start.timestamp() * 1000)
        self._now_ms = max(self._now_ms + 1, start_ms + moment_ms)  # so that a moment makes one id
        self._now = _EPOCH + timedelta(milliseconds=self._now_ms)

    def _begun(self, number: int, dice: random.Random) -> Told:
        lines = self._source.lines
        place, suffix = dice.randrange(len(lines)), f"~{number % PEOPLE}" if number % PEOPLE else ""
        kind: Kind = "direct" if number % 5 == 4 else "channel" if number % 10 == 3 else "group"
        people: tuple[str, ...] = (suffix,)
        slot = dice.randrange(SLOTS)
        if kind == "direct":
            first, second = (f"{lines[dice.randrange(len(lines))].nick}~d{number}{side}" for side in "ab")
            slot, people = direct_key(first, second).slot, (first, second)
        conversation_id = compose(self._now_ms, slot, 0)
        told = Told(self._source, conversation_id, kind, place, people, "", set())
        told.reader = people[0] if kind == "direct" else told.sender(1)
        told.members = {*people} if kind == "direct" else {told.reader}
        return told

    # -- what happens ---------------------------------------------------------------------------------------

    def _created(self, told: Told) -> Iterator[Made]:
        if told.kind == "direct":
            key = direct_key(*told.people)
            reserved = events.ConversationReserved(
                originator_id=key.value,
                originator_version=1,
                timestamp=self._now,
                actor_id=told.reader,
                originator_topic=Reservation.TOPIC,
                conversation_id=told.conversation_id,
            )
            yield self._made(subjects.CONV, key.slot, reserved)
        yield self._conversed(
            told,
            events.ConversationCreated,
            told.reader,
            originator_topic=Conversation.TOPIC,
            kind=told.kind,
            name=None if told.kind == "direct" else f"#{told.conversation_id % 100_000}",
            members=dict.fromkeys(sorted(told.members), "member" if told.kind == "direct" else "owner"),
            settings=default_settings(told.kind).as_dict(),
        )

    def _said(self, told: Told, number: int) -> Iterator[Made]:
        seq = told.last_seq + 1
        sender, mentions = told.sender(seq), told.mentions(seq)
        for user in (sender, *mentions):
            if user not in told.members:
                yield from self._joined(told, user, seq)
        told.message_ids.append(compose(self._now_ms, slot_of(told.conversation_id), 1))
        posted = self._conversed(
            told,
            events.MessagePosted,
            sender,
            seq=seq,
            message_id=told.message_ids[-1],
            client_msg_id=f"m{seq}",
            body={"type": "text", "text": told.text(seq)},
            reply_to=told.reply_to(seq),
            mentions=mentions,
        )
        told.versions.append(told.last_version)
        yield posted
        if number % READS == 0 and seq > 1:
            reader = told.sender(seq - 1)
            yield from self._of_user(reader, events.ReadMoved, conversation_id=told.conversation_id, seq=seq)
        if told.kind != "direct":
            yield from self._changed(told, number, sender)
        yield from self._about(told, number, sender)

    def _joined(self, told: Told, user: str, seq: int) -> Iterator[Made]:
        told.members.add(user)
        member: dict[str, Any] = {"user_id": user, "role": "member"}
        yield self._conversed(told, events.MemberAdded, told.reader, **member, joined_seq=seq)
        if told.kind == "channel":  # where admins write
            yield self._conversed(told, events.MemberUpdated, told.reader, user_id=user, role="admin")

    def _changed(self, told: Told, number: int, sender: str) -> Iterator[Made]:
        if number % LEAVES == 0 and sender != told.reader:
            told.members.discard(sender)
            yield self._conversed(told, events.MemberRemoved, sender, user_id=sender)
        elif number % PROMOTES == 0 and sender != told.reader and told.kind == "group":
            yield self._conversed(told, events.MemberUpdated, told.reader, user_id=sender, role="admin")
        if number % RENAMES == 0:
            settings = default_settings(told.kind).as_dict()
            yield self._conversed(
                told, events.ConversationUpdated, told.reader, name=f"as of {number}", settings=settings
            )

    def _about(self, told: Told, number: int, user: str) -> Iterator[Made]:
        if number % PROFILES == 0:
            profile: dict[str, Any] = {
                "display_name": user.title(),
                "avatar_url": None,
                "attributes": {"n": str(number)},
            }
            yield from self._of_user(user, events.ProfileUpdated, **profile)
        if number % DEVICES == 0:
            yield from self._of_user(user, events.DeviceRegistered, device_id=f"d{number}", kind="desktop")
        if number % SETTINGS == 0:
            own: dict[str, Any] = {"muted_until": None, "pinned": number % 2 == 0, "hidden": False}
            yield from self._of_user(user, events.SettingsUpdated, conversation_id=told.conversation_id, **own)
        if number % BLOCKS == 0 and user != told.reader:
            yield from self._of_user(user, events.UserBlocked, user_id=told.reader)
            yield from self._blocked(user, told.reader)

    def _blocked(self, user: str, other: str) -> Iterator[Made]:
        key = pair_key(user, other)
        values: dict[str, Any] = {"originator_id": key.value, "timestamp": self._now, "actor_id": user}
        version = self._pairs.get(key.value, 0)
        if not version:
            yield self._made(
                subjects.CONV,
                key.slot,
                events.PairCreated(**values, originator_version=1, originator_topic=Pair.TOPIC),
            )
            version = 1
        self._pairs[key.value] = version + 1
        yield self._made(subjects.CONV, key.slot, events.PairBlocked(**values, originator_version=version + 1))

    # -- as events ------------------------------------------------------------------------------------------

    def _conversed(self, told: Told, what: type[Event], actor: str, **fields: Any) -> Made:
        told.last_version += 1
        event = what(
            originator_id=str(told.conversation_id),
            originator_version=told.last_version,
            timestamp=self._now,
            actor_id=actor,
            **fields,
        )
        return self._made(subjects.CONV, slot_of(told.conversation_id), event)

    def _of_user(self, user: str, what: type[Event], **fields: Any) -> Iterator[Made]:
        values: dict[str, Any] = {"originator_id": user, "timestamp": self._now, "actor_id": user}
        version = self._users.get(user, 0)
        slot = user_slot(user)
        if not version:
            version = 1
            created = events.UserCreated(**values, originator_version=1, originator_topic=User.TOPIC)
            yield self._made(subjects.USER, slot, created)
        self._users[user] = version + 1
        yield self._made(subjects.USER, slot, what(**values, originator_version=version + 1, **fields))

    def _made(self, family: str, slot: int, event: Event) -> Made:
        partition = partition_of(slot, self.plan.partitions)
        return Made(
            subjects.stream(family, partition), subjects.aggregate(family, partition, event.originator_id), event
        )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
