"""The hash chain over a stream: what every archived batch is anchored by, and a short digest that names one event.

    link(n) = BLAKE2b-256(link(n - 1) || event(n)),  link(0) = 32 zero bytes

where event(n) is the position, subject, headers and body of an event, each with its length. Holes in the positions
change nothing: the position is part of the event. Whoever keeps a link elsewhere can tell years later whether one byte
of what was archived until then has changed.
"""

from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final

from streams.ports import Delivery

SIZE: Final = 32
FIRST: Final = bytes(SIZE)  # the link before the first event

_uint32: Final = Struct(">I").pack


def link(before: bytes, delivery: Delivery) -> bytes:
    """The link of an event, after that of the one before it."""
    return _link(before, _canonical(delivery))


def digest(delivery: Delivery) -> int:
    """64 bits of an event alone: enough to say which event of a broken batch it is that was changed."""
    return _digest(_canonical(delivery))


def link_and_digest(before: bytes, delivery: Delivery) -> tuple[bytes, int]:
    """Both, of one canonical form."""
    event = _canonical(delivery)
    return _link(before, event), _digest(event)


def _link(before: bytes, event: bytes) -> bytes:
    hasher = blake2b(before, digest_size=SIZE)
    hasher.update(event)
    return hasher.digest()


def _digest(event: bytes) -> int:
    return int.from_bytes(blake2b(event, digest_size=8).digest(), "big")


def _canonical(delivery: Delivery) -> bytes:
    subject, data = delivery.subject.encode(), delivery.data
    parts = [delivery.sequence.to_bytes(8, "big"), _uint32(len(subject)), subject]
    for name, value in sorted(delivery.headers.items()):
        encoded = value.encode("utf-8", "surrogatepass")
        parts += (_name(name), _uint32(len(encoded)), encoded)
    parts += (_uint32(len(data)), data)
    return b"".join(parts)


@lru_cache(maxsize=256)  # there are few names, which are in every event
def _name(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogatepass")
    return _uint32(len(encoded)) + encoded
