"""What a load process counts."""

import random
from collections import Counter
from dataclasses import dataclass, field

from runtime.client import ClientError

NOTES_MAX = 20
SPOILT_PER_CENT = 4  # of reconnects come with a cursor that was cut, so that pulling is done, too


@dataclass(slots=True)
class Outage:
    """A client's time without a session, not of its own will. Seconds of the machine's monotonic clock.

    Attributes:
        gateway: that it was connected to.
        current_s: when it had all that it had missed; `None` while it has not.
    """

    gateway: int
    lost_s: float
    current_s: float | None = None


@dataclass
class Tally:
    """Counts, added up over processes.

    Attributes:
        deliveries: events pushed.
        reconnects: sessions that began with a cursor: `recovered`, or `reset`, of which `spoilt` for a cut cursor.
        pulled: events that were pulled after a reset and not had before.
        errors: refusals, and sessions that ended otherwise than by the client, in words.
    """

    connects: int = 0
    deliveries: int = 0
    reconnects: int = 0
    recovered: int = 0
    reset: int = 0
    spoilt: int = 0
    pulled: int = 0
    posted: int = 0
    acked: int = 0
    connected: int = 0
    current: int = 0
    unacked: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    outages: list[Outage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def spoils(self, draw: random.Random) -> bool:
        """Whether a reconnect comes with a spoilt cursor."""
        return draw.random() * 100 < SPOILT_PER_CENT

    def failed(self, error: ClientError) -> None:
        """A connect that came to nothing."""
        text = str(error)
        self.errors["connect: " + (text if not text.startswith("cannot reach") else "nobody there")[:120]] += 1

    def note(self, text: str) -> None:
        """Something to look at afterwards."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def add(self, other: "Tally") -> None:
        """Take in another process's."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors += other.errors
        self.outages += other.outages
        self.notes += other.notes


_COUNTS = (
    *("connects", "deliveries", "reconnects", "recovered", "reset", "spoilt", "pulled"),
    *("posted", "acked", "connected", "current", "unacked"),
)
