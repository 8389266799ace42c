"""Cursors: what goes in comes out, and nothing else is ever taken for one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cursor import AHEAD_MAX, FORMAT, BadCursor, Cursor, Page

KEY = b"0123456789abcdef"
USER_IDS = st.from_regex(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}", fullmatch=True)
NUMBERS = st.integers(0, (1 << 63) - 1)


def _positions(partitions: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[NUMBERS] * partitions)


def _pages(partitions: int) -> st.SearchStrategy[Page]:
    return st.builds(Page, _positions(partitions), NUMBERS, NUMBERS)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    partitions = draw(st.sampled_from([1, 2, 4, 64]))
    ahead = draw(st.dictionaries(NUMBERS, NUMBERS, max_size=8))
    return Cursor(draw(_positions(partitions)), draw(NUMBERS), ahead, draw(st.none() | _pages(partitions)))


def decoded(token: str, cursor: Cursor, key: bytes = KEY, user: str = "ann") -> Cursor:
    return Cursor.decode(token, key, user, partitions=len(cursor.positions))


def token_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def raw_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "==")


@given(cursors(), USER_IDS)
def test_a_cursor_comes_back_equal(cursor: Cursor, user: str) -> None:
    token = cursor.encode(KEY, user)
    assert decoded(token, cursor, user=user) == cursor
    assert "=" not in token


def test_a_cursor_ahead_in_as_many_conversations_as_may_be_comes_back_equal() -> None:
    cursor = Cursor((7,), 3, {(1 << 62) + number: number for number in range(AHEAD_MAX)})
    token = cursor.encode(KEY, "ann")
    assert decoded(token, cursor) == cursor
    assert len(token) < 16_000  # goes into a query string


@given(cursors(), USER_IDS, USER_IDS)
def test_a_cursor_of_another_user_is_refused(cursor: Cursor, user: str, other: str) -> None:
    token = cursor.encode(KEY, user)
    if other != user:
        with pytest.raises(BadCursor):
            decoded(token, cursor, user=other)


@given(cursors(), st.data())
def test_a_changed_token_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    raw = bytearray(raw_of(cursor.encode(KEY, "ann")))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadCursor):
        decoded(token_of(bytes(raw)), cursor)


@given(cursors(), st.data())
def test_a_truncated_or_lengthened_token_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    raw = raw_of(cursor.encode(KEY, "ann"))
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    longer = raw + data.draw(st.binary(min_size=1, max_size=8))
    for other in (cut, longer):
        with pytest.raises(BadCursor):
            decoded(token_of(other), cursor)


@given(cursors(), st.integers(1, 64))
def test_a_cursor_of_another_deployment_is_refused(cursor: Cursor, partitions: int) -> None:
    token = cursor.encode(KEY, "ann")
    with pytest.raises(BadCursor):
        decoded(token, cursor, key=b"fedcba9876543210")
    if partitions != len(cursor.positions):
        with pytest.raises(BadCursor):
            Cursor.decode(token, KEY, "ann", partitions=partitions)


@given(cursors(), st.integers(0, 255))
def test_a_cursor_of_another_format_is_refused(cursor: Cursor, format_: int) -> None:
    raw = bytearray(raw_of(cursor.encode(KEY, "ann")))
    if format_ != FORMAT:
        raw[8] = format_
        with pytest.raises(BadCursor):
            decoded(token_of(bytes(raw)), cursor)


@given(st.text() | st.binary(max_size=64).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadCursor):
        Cursor.decode(token, KEY, "ann", partitions=1)
