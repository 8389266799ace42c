"""Cursors: what goes in comes out, and nothing else is ever taken for one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cursor import BadCursor, Cursor

KEY = b"0123456789abcdef"
CURSORS = st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=64).map(lambda p: Cursor(tuple(p)))


def decoded(token: str, cursor: Cursor, key: bytes = KEY) -> Cursor:
    return Cursor.decode(token, key, partitions=len(cursor.positions))


@given(CURSORS)
def test_a_cursor_comes_back_equal(cursor: Cursor) -> None:
    assert decoded(cursor.encode(KEY), cursor) == cursor


@given(CURSORS, st.data())
def test_a_changed_token_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(cursor.encode(KEY) + "=="))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadCursor):
        decoded(base64.urlsafe_b64encode(raw).decode().rstrip("="), cursor)


@given(CURSORS, st.data())
def test_a_cut_or_lengthened_token_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    raw = base64.urlsafe_b64decode(cursor.encode(KEY) + "==")
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    longer = raw + data.draw(st.binary(min_size=1, max_size=8))
    for other in (cut, longer):
        with pytest.raises(BadCursor):
            decoded(base64.urlsafe_b64encode(other).decode().rstrip("="), cursor)


@given(CURSORS, st.integers(1, 64))
def test_a_cursor_of_another_deployment_is_refused(cursor: Cursor, partitions: int) -> None:
    token = cursor.encode(KEY)
    with pytest.raises(BadCursor):
        decoded(token, cursor, key=b"fedcba9876543210")
    if partitions != len(cursor.positions):
        with pytest.raises(BadCursor):
            Cursor.decode(token, KEY, partitions=partitions)


@given(st.text() | st.binary(max_size=64).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadCursor):
        Cursor.decode(token, KEY, partitions=1)


@given(CURSORS, st.data(), st.integers(0, (1 << 63) - 1))
def test_a_cursor_never_moves_back(cursor: Cursor, data: st.DataObject, sequence: int) -> None:
    partition = data.draw(st.integers(0, len(cursor.positions) - 1))
    moved = cursor.advanced(partition, sequence)
    assert moved.positions[partition] == max(sequence, cursor.positions[partition])
    assert [p for i, p in enumerate(moved.positions) if i != partition] == [
        p for i, p in enumerate(cursor.positions) if i != partition
    ]
