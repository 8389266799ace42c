"""The moment as of which something is asked: a time, or a version of a conversation."""

from dataclasses import dataclass
from datetime import UTC, datetime

from domain.errors import Invalid
from domain.events import Event
from streams.public import rfc3339


@dataclass(frozen=True, slots=True)
class Moment:
    """One of the two is given. What was decided at that very time, and the version itself, belong to it."""

    at: datetime | None = None
    version: int | None = None

    @classmethod
    def of(cls, at: datetime | None, version: int | None) -> "Moment":
        """What a client asks for.

        Raises:
            Invalid: not exactly one of them, or a time without a zone.
        """
        if (at is None) == (version is None):
            raise Invalid("a time (at) or a version is expected, and not both", field="at")
        if at is not None and at.tzinfo is None:
            raise Invalid("a time with its zone is expected: 2026-11-25T09:00:00Z", field="at")
        return cls(at and at.astimezone(UTC), version)

    def has(self, event: Event) -> bool:
        """Whether an event had happened."""
        if self.at is not None:
            return event.timestamp <= self.at
        return self.version is None or event.originator_version <= self.version

    def __str__(self) -> str:
        return f"version {self.version}" if self.at is None else rfc3339(self.at)
