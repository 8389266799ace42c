"""Ids: 64-bit Snowflakes whose middle bits are a slot, and the slots of what has no id of its own.

    | 41 bits: ms since 2024-01-01 UTC | 10 bits: slot | 12 bits: counter |

The slot stands where others put a worker id. Only the writer of the slot's partition makes ids for it,
and the log fences that writer, so ids are unique without an id service.
`partition = slot mod partitions`; the number of partitions is a power of two.
"""

import hashlib
import re
from dataclasses import dataclass, field

from domain.errors import Invalid

EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
SLOT_BITS = 10
COUNTER_BITS = 12
SLOTS = 1 << SLOT_BITS
COUNTERS = 1 << COUNTER_BITS
ID_MAX = (1 << 63) - 1  # fits a signed 64-bit column
PAIR = "pair."  # begins the keys of pairs

USER_ID_MAX = 64
_USER_ID = re.compile(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}")
_DECIMAL = re.compile(r"[1-9][0-9]{0,18}")


def compose(ms: int, slot: int, counter: int) -> int:
    """The id made of Unix milliseconds, a slot (0…1023) and a counter (0…4095)."""
    return ((ms - EPOCH_MS) << (SLOT_BITS + COUNTER_BITS)) | (slot << COUNTER_BITS) | counter


def slot_of(id_: int) -> int:
    """The slot (0…1023) an id carries."""
    return (id_ >> COUNTER_BITS) & (SLOTS - 1)


def time_ms_of(id_: int) -> int:
    """The Unix milliseconds an id carries."""
    return (id_ >> (SLOT_BITS + COUNTER_BITS)) + EPOCH_MS


def partition_of(slot: int, partitions: int) -> int:
    """The partition that owns a slot, out of `partitions` (a power of two)."""
    return slot % partitions


def parse_id(text: str, *, field: str = "id") -> int:
    """The id a decimal string stands for.

    Raises:
        Invalid: it is not the canonical decimal form of a positive 63-bit number.
    """
    if not _DECIMAL.fullmatch(text) or (value := int(text)) > ID_MAX:
        raise Invalid("an id is a decimal string of 1 to 19 digits", field=field)
    return value


def check_user_id(user_id: str, *, field: str = "user_id") -> str:
    """The user id itself, when it is one.

    Raises:
        Invalid: it is not 1 to 64 of the allowed characters.
    """
    if not _USER_ID.fullmatch(user_id):
        raise Invalid(r"a user id is 1 to 64 characters of A-Z a-z 0-9 _ . : @ | ^ [ ] { } \ ` ~ -", field=field)
    return user_id


def _stable_hash(*parts: str) -> bytes:
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=16).digest()


def user_slot(user_id: str) -> int:
    """The slot of a user. Stable for ever: it places the user's stream."""
    return int.from_bytes(_stable_hash("user", user_id)[:8], "big") % SLOTS


@dataclass(frozen=True, slots=True)
class ReservationKey:
    """What may exist once: the subject suffix that reserves it, and the slot it and its conversation share.

    The reservation and the conversation lie in one partition, so one atomic batch writes both, and of two
    users who race one wins and the other finds the winner's conversation.
    """

    value: str
    slot: int


def direct_key(user_a: str, user_b: str) -> ReservationKey:
    """The key of the direct conversation of two users, the same whoever asks."""
    digest = _stable_hash("direct", *sorted((user_a, user_b)))
    return ReservationKey(f"dm.{digest.hex()}", int.from_bytes(digest[:8], "big") % SLOTS)


def pair_key(user_a: str, user_b: str) -> ReservationKey:
    """The key of what stands between two users (who blocked whom): in the slot of their direct conversation."""
    direct = direct_key(user_a, user_b)
    return ReservationKey(PAIR + direct.value.removeprefix("dm."), direct.slot)


def creation_key(creator_id: str, client_conversation_id: str) -> ReservationKey:
    """The key that makes a creation repeatable: the same creator and the same client id, the same conversation."""
    digest = _stable_hash("creation", creator_id, client_conversation_id)
    return ReservationKey(f"new.{digest.hex()}", int.from_bytes(digest[:8], "big") % SLOTS)


@dataclass(slots=True)
class IdSequence:
    """Makes the ids of one partition: rising, unique, never behind `newest_ms`.

    A new writer starts it after the newest event of its partition, so ids rise even if clocks do not.
    Not safe for threads; one writer owns it. When a millisecond's 4,096 ids of a slot are used up it
    borrows from the next millisecond rather than wait.
    """

    newest_ms: int = EPOCH_MS
    _counters: dict[int, int] = field(default_factory=dict)

    def advance(self, now_ms: int) -> int:
        """The time to decide at: `now_ms`, or the newest one that was decided at if that is later."""
        if now_ms > self.newest_ms:
            self.newest_ms = now_ms
            self._counters.clear()
        return self.newest_ms

    def next(self, slot: int, now_ms: int) -> int:
        """The next id of a slot, at `now_ms` or later."""
        self.advance(now_ms)
        counter = self._counters.get(slot, 0)
        if counter == COUNTERS:
            self.newest_ms += 1
            self._counters.clear()
            counter = 0
        self._counters[slot] = counter + 1
        return compose(self.newest_ms, slot, counter)
