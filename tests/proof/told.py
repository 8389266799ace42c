"""Conversations as they were told: what a history must be, whoever is asked for it."""

import pickle
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from domain.members import Kind
from tests.proof.source import Line, Source

REPLIES: Final = 11  # one in so many messages answers an earlier one of its conversation


@dataclass(slots=True)
class Told:
    """A conversation as it was told: what its history must be.

    Attributes:
        people: the two of a direct conversation; of any other what comes after each nick.
        reader: somebody who is a member from the beginning to the end.
        versions: of its messages, by seq from 1 on.
        last_version: of all its events.
    """

    source: Source
    conversation_id: int
    kind: Kind
    place: int
    people: tuple[str, ...]
    reader: str
    members: set[str]
    message_ids: "array[int]" = field(default_factory=lambda: array("Q"))
    versions: "array[int]" = field(default_factory=lambda: array("Q"))
    last_version: int = 0

    @property
    def last_seq(self) -> int:
        """How many messages there are."""
        return len(self.message_ids)

    def sender(self, seq: int) -> str:
        """Who wrote a message."""
        return self._user(self._line(seq).nick)

    def text(self, seq: int) -> str:
        """What it says."""
        return self._line(seq).text

    def mentions(self, seq: int) -> list[str]:
        """Who is mentioned in it."""
        mention = self._line(seq).mention
        return [self._user(mention)] if mention and self.kind != "direct" else []

    def reply_to(self, seq: int) -> int | None:
        """The id of the message that it answers."""
        return self.message_ids[seq - 1 - seq % 7 - 1] if seq % REPLIES == 0 and seq > 8 else None

    def seq_at(self, version: int) -> int | None:
        """The message that an event is; `None` where it is something else."""
        place = bisect_left(self.versions, version)
        return place + 1 if place < len(self.versions) and self.versions[place] == version else None

    def _line(self, seq: int) -> Line:
        return self.source.lines[(self.place + seq) % len(self.source.lines)]

    def _user(self, nick: str) -> str:
        if self.kind == "direct":
            return self.people[zlib.crc32(nick.encode()) & 1]
        return nick + self.people[0]


def save(path: Path, told: Sequence[Told]) -> None:
    """Keep them, without the source that they are made of."""
    kept = path.with_suffix(".new")
    kept.write_bytes(pickle.dumps([[getattr(one, name) for name in _KEPT] for one in told]))
    kept.replace(path)


def load(path: Path, source: Source) -> list[Told]:
    """Those that were kept."""
    return [Told(source, **dict(zip(_KEPT, values, strict=True))) for values in pickle.loads(path.read_bytes())]


_KEPT: Final = (
    *("conversation_id", "kind", "place", "people", "reader", "members", "message_ids", "versions", "last_version"),
)
