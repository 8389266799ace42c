"""Digests of rows: what verification compares instead of the rows themselves."""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

_to_json = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Digest:
    """A running digest of rows, and how many they were."""

    count: int = 0
    value: int = 0

    def add_next(self, row: tuple[Any, ...]) -> None:
        """Take the next row of an ordered history."""
        self.value = _hash(self.value.to_bytes(16, "big"), row)
        self.count += 1

    def add(self, row: tuple[Any, ...]) -> None:
        """Take a row of a set."""
        self.value ^= _hash(b"", row)
        self.count += 1


def _hash(before: bytes, row: tuple[Any, ...]) -> int:
    digest = hashlib.blake2b(before, digest_size=16)
    digest.update(_to_json(row))
    return int.from_bytes(digest.digest(), "big")
