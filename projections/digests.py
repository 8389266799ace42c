"""Digests of rows: what is compared instead of the rows themselves."""

import hashlib
from collections.abc import Sequence
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


def select_digests(table: str, key: str, columns: Sequence[str], *, where: str = "true") -> str:
    """A statement that makes the digests in the database: a key, a count and a value a line, by rising key.

    They can be compared with each other only. 64 bits, and no key: they are to find mistakes, not malice.
    """
    return (
        f"SELECT {key}, count(*), bit_xor(hashtextextended((ROW({', '.join(columns)}))::text, 0)) "
        f"FROM {table} WHERE {where} GROUP BY {key} ORDER BY {key}"
    )
