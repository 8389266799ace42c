"""A session's position: what it says to have pushed is what was pushed, whatever is pushed while an audit looks."""

from api.position import Position
from streams.cursor import Cursor

KEY = b"k" * 32


def told(position: Position) -> Cursor:
    """The cursor that a client would be given."""
    return Cursor.decode(position.token(), KEY, "ann", partitions=2)


def test_what_was_pushed_before_an_audit_is_in_its_base() -> None:
    position = Position(KEY, "ann", Cursor((5, 5)))
    position.pushed(1, 3)
    position.mark()
    position.advance(Cursor((9, 7)))
    assert told(position) == Cursor((9, 7))


def test_what_is_pushed_while_an_audit_looks_stays_ahead_of_its_base() -> None:
    position = Position(KEY, "ann", Cursor((5, 5)))
    position.pushed(1, 3)
    position.pushed(2, 8)
    position.mark()
    position.pushed(1, 4)
    position.pushed(3, 6)
    position.advance(Cursor((9, 7)))
    assert told(position) == Cursor((9, 7), 0, {1: 4, 3: 6})


def test_an_audit_that_began_before_the_session_moves_nothing() -> None:
    position = Position(KEY, "ann", Cursor((5, 9)))
    position.pushed(1, 3)
    position.mark()
    position.advance(Cursor((9, 7)))
    assert told(position) == Cursor((5, 9), 0, {1: 3})


def test_a_resumed_session_stands_where_all_that_was_missed_leads() -> None:
    position = Position(KEY, "ann", Cursor((5, 5), 2, {1: 3, 4: 9}))
    position.pushed(1, 4)
    position.stand(Cursor((8, 8), 6, {4: 9}))
    assert told(position) == Cursor((8, 8), 6, {4: 9})
