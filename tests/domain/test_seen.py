"""The filter of client message ids: never a false "no", seldom a false "perhaps"."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.seen import BITS_PER_KEY, FIRST_CAPACITY, SeenFilter

KEYS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=50)
FALSE_POSITIVES_A_LAYER = 0.005  # the theory says 0.0037 of a full layer


def filled(count: int) -> SeenFilter:
    seen = SeenFilter()
    for i in range(count):
        seen.add("sender", str(i))
    return seen


@given(KEYS)
def test_what_was_added_is_never_denied(keys: list[tuple[str, str]]) -> None:
    seen = SeenFilter()
    for key in keys:
        seen.add(*key)
        assert seen.may_contain(*key)
    assert all(seen.may_contain(*key) for key in keys)


def test_an_empty_filter_contains_nothing_and_takes_no_room() -> None:
    assert not SeenFilter().may_contain("sender", "1")
    assert SeenFilter().size_bytes == 0


# Inside the first layer, at its edge, just beyond it, and over four layers.
@pytest.mark.parametrize("count", [1, FIRST_CAPACITY, FIRST_CAPACITY + 1, 12_000])
def test_nothing_is_denied_and_little_is_mistaken_however_far_it_has_grown(count: int) -> None:
    seen = filled(count)
    assert all(seen.may_contain("sender", str(i)) for i in range(count))
    layers = len(seen.state()[1])
    asked = 10_000
    mistaken = sum(seen.may_contain("stranger", str(i)) for i in range(asked))
    assert mistaken <= FALSE_POSITIVES_A_LAYER * layers * asked


def test_each_layer_is_twice_the_one_before_and_is_filled_first() -> None:
    count, layers = filled(3 * FIRST_CAPACITY + 1).state()
    assert count == 1
    assert len(layers[0]) * 8 == FIRST_CAPACITY * BITS_PER_KEY
    assert [len(later) / len(earlier) for earlier, later in pairwise(layers)] == [2, 2]


def test_room_follows_the_number_of_keys() -> None:
    assert filled(12_000).size_bytes <= 2 * 12_000 * BITS_PER_KEY / 8


@settings(max_examples=20)
@given(st.integers(0, 3 * FIRST_CAPACITY + 2), st.integers(0, 20))
def test_a_restored_filter_goes_on_as_the_original(count: int, more: int) -> None:
    original = filled(count)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(original.state()))  # as in a snapshot
    restored = SeenFilter.restore(*packed)
    assert restored.state() == original.state()
    for i in range(more):
        original.add("later", str(i))
        restored.add("later", str(i))
    assert restored.state() == original.state()


def test_a_state_is_not_changed_by_what_follows() -> None:
    seen = filled(10)
    state = seen.state()
    seen.add("sender", "another")
    assert not SeenFilter.restore(*state).may_contain("sender", "another")
