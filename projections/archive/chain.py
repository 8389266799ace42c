"""The hash chain over a stream: what every archived batch is anchored by, and a short digest that names one event.

    link(n) = BLAKE2b-256(link(n - 1) || event(n)),  link(0) = 32 zero bytes

where event(n) is the position, subject, headers and body of an event, each with its length. Holes in the positions
change nothing: the position is part of the event. Whoever keeps a link elsewhere can tell years later whether one byte
of what was archived until then has changed.
"""

import hashlib
from typing import Final

from streams.ports import Delivery

SIZE: Final = 32
FIRST: Final = bytes(SIZE)  # the link before the first event


def link(before: bytes, delivery: Delivery) -> bytes:
    """The link of an event, after that of the one before it."""
    hasher = hashlib.blake2b(before, digest_size=SIZE)
    hasher.update(_canonical(delivery))
    return hasher.digest()


def digest(delivery: Delivery) -> int:
    """64 bits of an event alone: enough to say which event of a broken batch it is that was changed."""
    return int.from_bytes(hashlib.blake2b(_canonical(delivery), digest_size=8).digest(), "big")


def _canonical(delivery: Delivery) -> bytes:
    subject, data = delivery.subject.encode(), delivery.data
    parts = [delivery.sequence.to_bytes(8, "big"), len(subject).to_bytes(4, "big"), subject]
    for name, value in sorted(delivery.headers.items()):
        name_bytes, value_bytes = name.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass")
        parts += (len(name_bytes).to_bytes(4, "big"), name_bytes, len(value_bytes).to_bytes(4, "big"), value_bytes)
    parts += (len(data).to_bytes(4, "big"), data)
    return b"".join(parts)
