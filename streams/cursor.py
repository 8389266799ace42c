"""A client's resume token: how far it has seen, one log position a partition. Opaque outside this file.

`base64url(keyed checksum | format | varint positions…)`. The checksum is keyed, so a token that was
forged, cut or made for another deployment is told from a real one; the worst a bad token can do is a full sync.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

FORMAT = 1
CHECK_BYTES = 8


class BadCursor(ValueError):
    """Not a cursor of this deployment. The client starts again from its inbox."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """`positions[p]` is the sequence of partition p up to which everything was seen."""

    positions: tuple[int, ...]

    def encode(self, key: bytes) -> str:
        """The token. `key` is the deployment's secret for cursors (16 bytes or more)."""
        body = bytes([FORMAT]) + b"".join(_varint(position) for position in self.positions)
        token = _check(key, body) + body
        return base64.urlsafe_b64encode(token).rstrip(b"=").decode()

    @classmethod
    def decode(cls, token: str, key: bytes, *, partitions: int) -> "Cursor":
        """The cursor of a token.

        Raises:
            BadCursor: forged, truncated, of another deployment or format, or of another number of partitions.
        """
        try:
            raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error, UnicodeEncodeError):
            raise BadCursor("not base64url") from None
        check, body = raw[:CHECK_BYTES], raw[CHECK_BYTES:]
        if not body or body[0] != FORMAT or check != _check(key, body):
            raise BadCursor("not a cursor of this deployment")
        positions = _positions(body[1:])
        if len(positions) != partitions:
            raise BadCursor("made for another number of partitions")
        return cls(tuple(positions))

    def advanced(self, partition: int, sequence: int) -> "Cursor":
        """This cursor with one position moved forward, never back."""
        positions = list(self.positions)
        positions[partition] = max(positions[partition], sequence)
        return Cursor(tuple(positions))


def _check(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key[:64], digest_size=CHECK_BYTES).digest()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _positions(data: bytes) -> Sequence[int]:
    positions, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            positions.append(value)
            value = shift = 0
    return positions
