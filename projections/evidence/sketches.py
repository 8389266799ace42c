"""A sketch of rows: by stretches of positions, how many there are and the sum of their digests.

What a table should have is put in with one sign, what it has with the other. Where the two are the same nothing is
left, in whatever order they came; where something is, the stretch is looked at closely. So tables of any size are
compared in one pass each, unsorted, in bounded memory. The digests have a key of the run, so that nobody can make rows
that cancel each other out.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

STRETCHES: Final = 16_384  # about as many, over all streams
_MODULUS: Final = 1 << 128

# Equal values look the same in it, wherever they come from: times whatever their zone, lists and tuples.
encoded: Final = msgspec.msgpack.Encoder(order="sorted").encode


class Stretch(NamedTuple):
    """Positions of a stream, from the first to the last."""

    stream: str
    first: int
    last: int


class Sketch:
    """Of one table.

    Args:
        positions: of all streams together: how large the stretches are.
    """

    def __init__(self, positions: int) -> None:
        self.rows = 0  # that the table should have
        self._size = max(1, -(-positions // STRETCHES))
        self._key = secrets.token_bytes(16)
        self._left: dict[tuple[str, int], tuple[int, int]] = {}

    def expect(self, stream: str, sequence: int, row: Sequence[Any]) -> None:
        """A row that should be there."""
        self.rows += 1
        self._add(stream, sequence, row, 1)

    def find(self, stream: str, sequence: int, row: Sequence[Any]) -> None:
        """A row that is there."""
        self._add(stream, sequence, row, -1)

    def different(self) -> list[Stretch]:
        """The stretches in which the two differ."""
        size = self._size
        return [
            Stretch(stream, number * size, (number + 1) * size - 1)
            for (stream, number), left in sorted(self._left.items())
            if left != (0, 0)
        ]

    def _add(self, stream: str, sequence: int, row: Sequence[Any], sign: int) -> None:
        digest = hashlib.blake2b(encoded((stream, sequence, row)), digest_size=16, key=self._key).digest()
        at = stream, sequence // self._size
        count, total = self._left.get(at, (0, 0))
        self._left[at] = count + sign, (total + sign * int.from_bytes(digest, "big")) % _MODULUS
