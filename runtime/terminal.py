"""What is written to a terminal or a pipe: other people's text made harmless, and readers that go away."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Go on quietly after the block when whoever reads stdout has closed it (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Else the interpreter flushes once more as it ends, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
