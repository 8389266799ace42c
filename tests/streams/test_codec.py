"""Events to records and back, with any content, and old events read by new classes."""

from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from eventsourcing.utils import TopicError, register_topic
from hypothesis import given
from hypothesis import strategies as st

from domain.conversations import Conversation
from domain.events import EVENTS, OF_CONVERSATIONS, OF_USERS, Event, UserCreated
from domain.ids import creation_key, direct_key, pair_key
from domain.pairs import Pair
from domain.reservations import Reservation
from domain.users import User
from streams import codec, subjects
from streams.codec import Metadata
from streams.ports import Delivery, Record

USER_IDS = st.from_regex(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
IDS = st.integers(1, (1 << 63) - 1)
BODIES = st.dictionaries(TEXTS, st.one_of(TEXTS, st.booleans(), st.none(), IDS), max_size=4)
MOMENTS = st.integers(0, 4_000_000_000_000).map(
    lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "originator_version": st.integers(1, 1 << 40),
    "timestamp": MOMENTS,
    "actor_id": USER_IDS,
    "user_id": USER_IDS,
    "kind": st.sampled_from(["direct", "group", "channel", "mobile"]),
    "name": st.none() | TEXTS,
    "members": st.dictionaries(USER_IDS, st.sampled_from(["owner", "admin", "member"]), max_size=5),
    "settings": BODIES,
    "role": st.sampled_from(["owner", "admin", "member"]),
    "joined_seq": IDS,
    "seq": IDS,
    "message_id": IDS,
    "client_msg_id": st.from_regex(r"[!-~]{1,64}", fullmatch=True),
    "body": BODIES,
    "reply_to": st.none() | IDS,
    "mentions": st.lists(USER_IDS, max_size=5),
    "conversation_id": IDS,
    "display_name": st.none() | TEXTS,
    "avatar_url": st.none() | TEXTS,
    "attributes": st.dictionaries(TEXTS, TEXTS, max_size=4),
    "device_id": TEXTS,
    "muted_until": st.none() | MOMENTS,
    "pinned": st.booleans(),
    "hidden": st.booleans(),
}
# The aggregate of each first event, and the ids that events have: those of their aggregate.
AGGREGATES = {
    "conversation.created": Conversation.TOPIC,
    "conversation.reserved": Reservation.TOPIC,
    "pair.created": Pair.TOPIC,
    "user.created": User.TOPIC,
}
RESERVATIONS = st.builds(direct_key, USER_IDS, USER_IDS) | st.builds(creation_key, USER_IDS, USER_IDS)
PAIRS = st.builds(pair_key, USER_IDS, USER_IDS)


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of a class; a field this module does not know is an error, so a new event must be added here."""
    names = [field.name for field in fields_of(kind) if field.name not in ("originator_id", "originator_topic")]
    fields = {name: FIELDS[name] for name in names}
    if kind in OF_CONVERSATIONS:
        fields["originator_id"] = IDS.map(str)
    elif family_of(kind) == subjects.USER:
        fields["originator_id"] = USER_IDS
    else:
        keys = PAIRS if kind.TOPIC.startswith("pair.") else RESERVATIONS
        fields["originator_id"] = keys.map(lambda key: key.value)
    if kind.TOPIC in AGGREGATES:
        fields["originator_topic"] = st.just(AGGREGATES[kind.TOPIC])
    return st.builds(kind, **fields)


def family_of(kind: type[Event]) -> str:
    return subjects.USER if kind in (*OF_USERS, UserCreated) else subjects.CONV


def delivered(record: Record) -> Delivery:
    return Delivery("CONV-3", 7, record.subject, record.data, record.headers, datetime.now(UTC))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.TOPIC)
@given(data=st.data())
def test_every_event_comes_back_equal(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(events_of(kind))
    record = codec.encode(event, subjects.aggregate(family_of(kind), 3, event.originator_id), Metadata())
    assert codec.decode(delivered(record)) == event
    assert codec.event_type(record.headers) == kind.TOPIC
    assert codec.event_version(record.headers) == event.originator_version
    assert codec.occurred_at(record.headers) == event.timestamp
    assert record.headers[subjects.ACTOR] == event.actor_id


def test_metadata_is_in_the_headers_and_only_what_there_is() -> None:
    event = Noted("1", 2, datetime(2026, 1, 1, tzinfo=UTC), "ann", "hello")
    bare = codec.encode(event, "conv.0.1", Metadata())
    assert set(bare.headers) == {subjects.TYPE, subjects.VERSION, subjects.OCCURRED_AT, subjects.ACTOR}
    full = codec.encode(event, "conv.0.1", Metadata("request", "cause", "00-trace-01"), append_id="a-1")
    assert {name: value for name, value in full.headers.items() if name not in bare.headers} == {
        subjects.CORRELATION: "request",
        subjects.CAUSATION: "cause",
        subjects.TRACE: "00-trace-01",
        subjects.APPEND: "a-1",
    }


@dataclass(frozen=True)
class Noted(Event):
    """An event as it once was."""

    TOPIC = "test.noted-once"

    text: str


@dataclass(frozen=True)
class NotedNow(Event):
    """The same after two changes of shape: the text became a body, and the body got a language."""

    TOPIC = "test.noted"
    class_version = 3

    body: dict[str, Any]
    language: str

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["body"] = {"type": "text", "text": state.pop("text")}

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        state["language"] = "unknown"


register_topic(Noted.TOPIC, Noted)
register_topic(NotedNow.TOPIC, NotedNow)


def test_an_old_event_is_read_in_its_new_shape() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    old = codec.encode(Noted("1", 2, moment, "ann", "hello"), "conv.0.1", Metadata())
    new = NotedNow("1", 2, moment, "ann", {"type": "text", "text": "hello"}, "unknown")
    headers = {**old.headers, subjects.TYPE: NotedNow.TOPIC}
    assert codec.decode_parts("conv.0.1", headers, old.data) == new
    assert codec.decode(delivered(codec.encode(new, "conv.0.1", Metadata()))) == new


@pytest.mark.parametrize(
    ("headers", "data", "error"),
    [
        ({}, b"", KeyError),
        ({"Rr-Version": "1", "Rr-Type": "test.nobody.knows:this"}, msgspec.msgpack.encode({}), TopicError),
        ({"Rr-Version": "x", "Rr-Type": "test.noted"}, b"", ValueError),
        ({"Rr-Version": "1", "Rr-Type": "message.posted"}, b"\xc1", Exception),
    ],
)
def test_what_is_no_event_of_ours_is_refused(headers: dict[str, str], data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        codec.decode_parts("conv.0.1", headers, data)
