"""Ids: what they are made of, how they rise, and where what has no id of its own is placed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import ids
from domain.errors import Invalid
from domain.ids import IdSequence

SLOTS = st.integers(0, ids.SLOTS - 1)
MOMENTS = st.integers(ids.EPOCH_MS, ids.EPOCH_MS + (1 << 41) - 1)
USERS = st.from_regex(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}", fullmatch=True)


@given(MOMENTS, SLOTS, st.integers(0, ids.COUNTERS - 1))
def test_an_id_says_its_time_and_slot_and_fits_a_signed_column(ms: int, slot: int, counter: int) -> None:
    id_ = ids.compose(ms, slot, counter)
    assert (ids.time_ms_of(id_), ids.slot_of(id_)) == (ms, slot)
    assert 0 <= id_ <= ids.ID_MAX


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1_000, 1_000)), max_size=200))
def test_ids_rise_and_are_unique_even_when_the_clock_jumps_back(moves: list[tuple[int, int]]) -> None:
    sequence, now_ms = IdSequence(), ids.EPOCH_MS + 10_000
    made: dict[int, list[int]] = {}
    for slot, jump_ms in moves:
        now_ms += jump_ms
        made.setdefault(slot, []).append(sequence.next(slot, now_ms))
    for slot, of_slot in made.items():
        assert of_slot == sorted(set(of_slot))
        assert {ids.slot_of(id_) for id_ in of_slot} == {slot}
    everything = [id_ for of_slot in made.values() for id_ in of_slot]
    assert len(everything) == len(set(everything))


def test_a_used_up_millisecond_borrows_from_the_next_for_every_slot() -> None:
    sequence, now_ms = IdSequence(), ids.EPOCH_MS + 1
    sequence.next(2, now_ms)
    made = [sequence.next(1, now_ms) for _ in range(ids.COUNTERS + 1)]
    assert made == sorted(set(made))
    assert ids.time_ms_of(made[-2]) == now_ms
    assert ids.time_ms_of(made[-1]) == now_ms + 1
    assert sequence.next(2, now_ms) == ids.compose(now_ms + 1, 2, 0)


@given(st.integers(ids.EPOCH_MS, ids.EPOCH_MS + 10_000), st.integers(ids.EPOCH_MS, ids.EPOCH_MS + 10_000))
def test_a_new_writer_goes_on_after_the_newest_event(newest_ms: int, now_ms: int) -> None:
    id_ = IdSequence(newest_ms=newest_ms).next(0, now_ms)
    assert ids.time_ms_of(id_) == max(newest_ms, now_ms)


def test_a_clock_before_the_epoch_makes_no_negative_id() -> None:
    assert IdSequence().next(3, 0) == ids.compose(ids.EPOCH_MS, 3, 0)


@given(st.integers(1, ids.ID_MAX))
def test_an_id_survives_its_decimal_form(id_: int) -> None:
    assert ids.parse_id(str(id_)) == id_


@pytest.mark.parametrize(
    "text",
    ["", "0", "01", "-1", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "0x1", "abc", "\u0661", str(ids.ID_MAX + 1), "9" * 20],
)
def test_what_is_no_canonical_id_is_refused_by_field(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        ids.parse_id(text, field="conversation_id")
    assert (refusal.value.code, refusal.value.field) == ("invalid", "conversation_id")


@given(USERS)
def test_user_ids_are_taken_as_they_are_and_have_one_slot(user_id: str) -> None:
    assert ids.check_user_id(user_id) == user_id
    assert 0 <= ids.user_slot(user_id) < ids.SLOTS


@pytest.mark.parametrize("user_id", ["", "a" * 65, "a b", "ä", "a\n", "a/b", "a\x00", "a*"])
def test_what_is_no_user_id_is_refused_by_field(user_id: str) -> None:
    with pytest.raises(Invalid) as refusal:
        ids.check_user_id(user_id, field="add")
    assert refusal.value.field == "add"


@given(st.integers(0, 10), SLOTS)
def test_every_slot_has_one_partition(power: int, slot: int) -> None:
    partitions = 1 << power
    assert ids.partition_of(slot, partitions) == slot % partitions
    # Twice as many partitions split one: a slot's partition is the same or the one that is as far again.
    assert ids.partition_of(slot, 2 * partitions) % partitions == ids.partition_of(slot, partitions)


def test_placement_never_changes() -> None:
    # These values place streams of deployments that exist: a change of them loses data.
    assert [ids.user_slot(user) for user in ("alice", "bob")] == [9, 315]
    assert ids.direct_key("alice", "bob") == ids.ReservationKey("dm.df957e90ff7460aadb31e8dd7edf9f04", 170)
    assert ids.pair_key("bob", "alice") == ids.ReservationKey("pair.df957e90ff7460aadb31e8dd7edf9f04", 170)
    assert ids.creation_key("alice", "irc:ubuntu") == ids.ReservationKey("new.950ab522a83721cfc19dea04f8326b3f", 463)


@given(USERS, USERS)
def test_a_pair_has_one_key_whoever_asks(user_a: str, user_b: str) -> None:
    key = ids.direct_key(user_a, user_b)
    assert key == ids.direct_key(user_b, user_a)
    assert key.value.startswith("dm.")
    assert 0 <= key.slot < ids.SLOTS


@given(USERS, USERS, USERS)
def test_different_pairs_and_different_creators_have_different_keys(user_a: str, user_b: str, user_c: str) -> None:
    if {user_a, user_b} != {user_a, user_c}:
        assert ids.direct_key(user_a, user_b) != ids.direct_key(user_a, user_c)
    if user_a != user_b:
        assert ids.creation_key(user_a, user_c) != ids.creation_key(user_b, user_c)
    assert ids.creation_key(user_a, user_b).value.startswith("new.")


def test_time_goes_on_from_the_newest_one_that_was_decided_at() -> None:
    sequence = IdSequence(newest_ms=ids.EPOCH_MS + 10)
    assert sequence.advance(ids.EPOCH_MS) == ids.EPOCH_MS + 10
    assert sequence.advance(ids.EPOCH_MS + 20) == ids.EPOCH_MS + 20
    assert ids.time_ms_of(sequence.next(0, ids.EPOCH_MS + 15)) == ids.EPOCH_MS + 20
