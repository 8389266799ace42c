"""Which way an event goes: always one that is listened to, in the band both."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.fanout import SIGNAL_MEMBERS_MAX, reads, signals, writes

counts = st.integers(1, 200_000)
limits = st.integers(0, 200_000)


@given(counts, limits)
def test_every_event_goes_one_way_at_least(count: int, limit: int) -> None:
    assert writes(count, limit) or reads(count, limit)


@given(limits)
def test_both_ways_overlap_right_below_the_limit_unless_there_is_none(limit: int) -> None:
    assert (writes(limit, limit) and reads(limit, limit)) == (limit > 0)


@given(limits, st.lists(st.sampled_from([1, -1]), max_size=60), st.integers(-30, 30))
def test_crossing_one_member_at_a_time_the_new_way_stands_before_the_old_one_ends(
    limit: int, steps: list[int], start: int
) -> None:
    sizes = [max(1, limit + start)]
    for step in steps:
        sizes.append(max(1, sizes[-1] + step))
    for before, after in pairwise(sizes):
        ways_before = {writes(before, limit), not reads(before, limit)}
        ways_after = {writes(after, limit), not reads(after, limit)}
        # Never from "only addressed" to "only listened to" in one event, nor back.
        if limit > 0:
            assert not (ways_before == {True} and ways_after == {False})
            assert not (ways_before == {False} and ways_after == {True})


@pytest.mark.parametrize(
    ("count", "limit", "written", "read"),
    [
        (1, 0, False, True),
        (1, 1, True, True),
        (2, 1, False, True),
        (80, 100, True, False),
        (81, 100, True, True),
        (100, 100, True, True),
        (101, 100, False, True),
    ],
)
def test_the_ways_of_some_sizes(count: int, limit: int, written: bool, read: bool) -> None:
    assert (writes(count, limit), reads(count, limit)) == (written, read)


def test_signals_are_for_groups_under_a_hundred() -> None:
    assert signals(SIGNAL_MEMBERS_MAX - 1)
    assert not signals(SIGNAL_MEMBERS_MAX)
    assert SIGNAL_MEMBERS_MAX == 100
