"""What a gateway keeps of what it pushed: all of the newest, and no more bytes than it may."""

from hypothesis import given
from hypothesis import strategies as st

from api.frames import EventFrame, payload_of, sse_lines, text_frame
from api.recent_events import RecentEvents


def frame(conversation_id: int, version: int, characters: int = 0) -> EventFrame:
    return EventFrame(conversation_id, version, b"x" * characters, None, 0, stored_s=0.0)


def test_the_newest_are_kept_whoever_they_are_of_and_the_oldest_go() -> None:
    recent = RecentEvents(max_bytes=3 * frame(1, 1).size)
    for conversation_id, version in ((1, 1), (2, 1), (1, 2), (1, 2), (3, 7)):
        recent.add(frame(conversation_id, version))
    assert recent.get(1, 1) is None
    assert [recent.get(*key) is not None for key in ((2, 1), (1, 2), (3, 7))] == [True, True, True]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(0, 3_000)), max_size=200))
def test_never_more_bytes_than_it_may_and_nothing_goes_before_it_must(added: list[tuple[int, int, int]]) -> None:
    recent = RecentEvents(max_bytes=20_000)
    first: dict[tuple[int, int], EventFrame] = {}
    for conversation_id, version, characters in added:
        made = frame(conversation_id, version, characters)
        recent.add(made)
        if recent.get(conversation_id, version) is made:
            first.pop((conversation_id, version), None)
            first[conversation_id, version] = made
        kept = {key: one for key, one in first.items() if recent.get(*key) is one}
        assert sum(one.size for one in kept.values()) <= 20_000
        assert list(kept) == list(first)[len(first) - len(kept) :]
        gone = list(first)[: len(first) - len(kept)]
        if gone:
            assert sum(one.size for one in kept.values()) + first[gone[-1]].size > 20_000
        for key in gone:
            del first[key]


@given(st.integers(0, 70_000))
def test_a_frame_gives_its_text_back(size: int) -> None:
    payload = b"x" * size
    assert payload_of(text_frame(payload)) == payload
    assert frame(1, 1, size).sse == sse_lines("event", payload)
