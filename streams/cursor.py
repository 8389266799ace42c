"""A client's resume token: how far it has seen, one log position a partition. Opaque outside this file.

`base64url(keyed checksum | format | flags and varints…)`. The checksum is keyed and covers the user's id, so a token
that was forged, cut, or made for another user or deployment is told from a real one; the worst a bad token can do is a
full sync.

Positions alone would be enough if everything came in the order of the log. Pushes of different conversations do not:
one may wait for a hole to be filled while others go on. So a cursor says of a few conversations how far it is ahead of
its position (`ahead`), until its position has caught up with them.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FORMAT = 2
CHECK_BYTES = 8
AHEAD_MAX = 300  # conversations; about 5 kB of token, which has to fit in a URL


class BadCursor(ValueError):
    """Not a cursor of this user in this deployment. The client starts again from its inbox."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where a sync that did not fit in one answer goes on.

    Attributes:
        until: the positions that everything will have been seen up to when the last page has.
        after: the last conversation that was given. They come in the order of their ids, which stands still while
            their heads move, so that each is given once and none is passed over.
    """

    until: tuple[int, ...]
    until_own: int
    after: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a client has seen.

    Attributes:
        positions: `positions[p]` is the sequence of conversations' partition p up to which everything was seen.
        own: the same of the partition that holds the user's own events.
        ahead: the versions of conversations of which more was seen than the positions say.
        page: of a sync under way.
    """

    positions: tuple[int, ...]
    own: int = 0
    ahead: Mapping[int, int] = field(default_factory=dict)
    page: Page | None = None

    def reaches(self, other: "Cursor") -> bool:
        """Whether this is no earlier than another, partition by partition."""
        behind = all(mine >= theirs for mine, theirs in zip(self.positions, other.positions, strict=True))
        return behind and self.own >= other.own

    def encode(self, key: bytes, user_id: str) -> str:
        """The token. `key` is the deployment's secret for cursors (16 bytes or more)."""
        numbers = [*self.positions, self.own, len(self.ahead)]
        for conversation_id, version in self.ahead.items():
            numbers += (conversation_id, version)
        if self.page is not None:
            numbers += (*self.page.until, self.page.until_own, self.page.after)
        body = bytes([FORMAT, self.page is not None]) + b"".join(map(_varint, [len(self.positions), *numbers]))
        token = _check(key, user_id, body) + body
        return base64.urlsafe_b64encode(token).rstrip(b"=").decode()

    @classmethod
    def decode(cls, token: str, key: bytes, user_id: str, *, partitions: int) -> "Cursor":
        """The cursor of a token.

        Raises:
            BadCursor: forged, truncated, of another user, deployment or format, or of another number of partitions.
        """
        try:
            raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error, UnicodeEncodeError):
            raise BadCursor("not base64url") from None
        check, body = raw[:CHECK_BYTES], raw[CHECK_BYTES:]
        if len(body) < 2 or body[0] != FORMAT or check != _check(key, user_id, body):
            raise BadCursor("not a cursor of this user and deployment")
        numbers = _numbers(body[2:])
        if next(numbers) != partitions:
            raise BadCursor("made for another number of partitions")
        positions = tuple(next(numbers) for _ in range(partitions))
        own = next(numbers)
        ahead = {next(numbers): next(numbers) for _ in range(next(numbers))}
        page = None
        if body[1]:
            until = tuple(next(numbers) for _ in range(partitions))
            page = Page(until, next(numbers), next(numbers))
        return cls(positions, own, ahead, page)


def _check(key: bytes, user_id: str, body: bytes) -> bytes:
    # A user id has no NUL, so no other id and body hash to the same.
    return hashlib.blake2b(user_id.encode() + b"\0" + body, key=key[:64], digest_size=CHECK_BYTES).digest()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _numbers(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
