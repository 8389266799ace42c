"""The mark that begins each message's text: which message it is and when it was due, readable by any process.

So a delivery explains itself: whoever hears it can tell how long it took and whether one before it is missing,
whatever the server and its framing are. Times are microseconds of `CLOCK_MONOTONIC`, which all processes share.
"""

import time
from typing import Final

START: Final = b"~mark"
SEQS: Final = 10_000_000  # a message's key is its lane times this, plus its seq in the lane
KEY_AT: Final = len(START)
DUE_AT: Final = KEY_AT + 14
END: Final = DUE_AT + 16
SIZE_MIN: Final = END + 1


def now_us() -> int:
    """The time."""
    return time.monotonic_ns() // 1000


def marked(key: int, due_us: int, padding: str) -> str:
    """A message's text."""
    return f"~mark{key:014d}{due_us:016d}{padding}"


def padding(size: int) -> str:
    """What makes a text of `size` characters of a mark."""
    return "x" * (size - END)
