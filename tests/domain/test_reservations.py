"""Reservations: a key that stands for one conversation for ever."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from domain.events import ConversationReserved, Event
from domain.ids import ReservationKey, creation_key, direct_key
from domain.reservations import Reservation
from tests.domain.given import ID, START, stored_and_read

KEYS = st.sampled_from([direct_key("alice", "bob"), creation_key("alice", "c-1")])


@given(KEYS, st.integers(1, (1 << 63) - 1))
def test_a_reserved_key_names_its_conversation_also_when_read_back(key: ReservationKey, conversation_id: int) -> None:
    reservation = Reservation.reserve(key.value, conversation_id, actor_id="alice", now=START)
    (event,) = (cast(Event, event) for event in reservation.collect_events())
    read: Any = stored_and_read(event)
    assert read == event
    again = read.mutate(None)
    assert isinstance(again, Reservation)
    assert (again.id, again.conversation_id, again.version) == (key.value, conversation_id, 1)


def test_a_reservation_is_one_event_that_says_who_and_when() -> None:
    reservation = Reservation.reserve("dm.00", ID, actor_id="alice", now=START)
    (event,) = reservation.collect_events()
    assert event == ConversationReserved(
        originator_id="dm.00",
        originator_version=1,
        timestamp=START,
        actor_id="alice",
        originator_topic=Reservation.TOPIC,
        conversation_id=ID,
    )


def test_nothing_follows_a_reservation() -> None:
    reservation = Reservation.reserve("dm.00", ID, actor_id="alice", now=START)
    (event,) = reservation.collect_events()
    reservation.fold(cast(Event, event))
    assert reservation.conversation_id == ID
