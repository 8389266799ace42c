"""Where a session's server is heard: answers matched with operations, deliveries held against what is due.

Each session must be given each sender's messages once and in turn: the marks say which they are. What is missing,
comes again or comes out of turn is counted here, for every server alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from runtime.bench.adapter import Op, Seat, Session
from runtime.bench.mark import DUE_AT, END, KEY_AT, SEQS, START, now_us


@dataclass(slots=True)
class Lane:
    """One user's messages to one group: numbered, so that each listener can tell whether one is missing.

    Attributes:
        number: unique in the run.
        posted: how many messages were begun.
    """

    number: int
    inbox: "UserInbox"
    group_number: int
    group: str
    posted: int = 0


Circle = Iterator[Lane]  # of the closed loop: the lanes of one user, by turns and without end


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation under way.

    Attributes:
        key: of its message; -1 for what is none.
        circle: which goes on when it is complete; `None` in the open loop.
    """

    op: Op
    due_us: int
    key: int
    circle: Circle | None


class Run(Protocol):
    """Who counts."""

    def completed(self, begun: Begun, now: int) -> None:
        """An operation was answered."""

    def failed(self, begun: Begun, code: str) -> None:
        """An operation was refused."""

    def delivered(self, key: int, due_us: int, now: int) -> None:
        """A message came, to one session, for the first time."""

    def disordered(self) -> None:
        """A message came after a later one of the same lane."""

    def doubled(self) -> None:
        """A message came again."""

    def received(self, payload: bytes, now: int) -> None:
        """Bytes with messages came."""

    def ended(self, inbox: "UserInbox", reason: str) -> None:
        """A session is over, and nobody here has ended it."""


class UserInbox:
    """An inbox of a user, through one session after the other and one run after the other.

    Attributes:
        session: the open one; `None` between two and after the last.
        under_way: operations without an answer, by number.
        missing: keys of messages that were due before one that came.
    """

    __slots__ = ("_first", "_run", "_seen", "_until", "missing", "seat", "session", "under_way")

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.session: Session | None = None
        self.under_way: dict[int, Begun] = {}
        self.missing: set[int] = set()
        self._run: Run | None = None
        self._first = self._until = 0
        self._seen: dict[int, int] = {}  # lane → key of the next message that is due

    def take_part(self, run: Run, seat: Seat, keys: range) -> None:
        """Tell this run from now on, and none before it.

        Args:
            seat: the user's, perhaps with the groups in another order.
            keys: of the messages of this run; others are from earlier ones and do not count.
        """
        self.seat = seat
        self.under_way, self.missing, self._seen = {}, set(), {}
        self._run = run
        self._first, self._until = keys.start, keys.stop

    def delivered(self, payload: bytes) -> None:
        """See `adapter.Inbox`."""
        now = now_us()
        seen, run = self._seen, self._run
        at = payload.find(START)
        if run is None or at < 0:
            return
        run.received(payload, now)
        while at >= 0:
            key = int(payload[at + KEY_AT : at + DUE_AT])
            if self._first <= key < self._until:
                lane = key // SEQS
                expected = seen.get(lane, lane * SEQS)
                if key == expected:
                    seen[lane] = key + 1
                    run.delivered(key, int(payload[at + DUE_AT : at + END]), now)
                else:
                    self._out_of_turn(run, key, expected, int(payload[at + DUE_AT : at + END]), now)
            at = payload.find(START, at + END)

    def _out_of_turn(self, run: Run, key: int, expected: int, due_us: int, now: int) -> None:
        if key > expected:
            self.missing.update(range(expected, key))
            self._seen[key // SEQS] = key + 1
            run.delivered(key, due_us, now)
        elif key in self.missing:
            self.missing.remove(key)
            run.disordered()
            run.delivered(key, due_us, now)
        else:
            run.doubled()

    def lacks(self, lane: Lane) -> range:
        """The keys of a lane's newest messages that have not come."""
        start = lane.number * SEQS
        return range(self._seen.get(lane.number, start), start + lane.posted)

    def done(self, number: int) -> None:
        """See `adapter.Inbox`."""
        begun = self.under_way.pop(number, None)
        if begun is not None and self._run is not None:
            self._run.completed(begun, now_us())

    def refused(self, number: int, code: str) -> None:
        """See `adapter.Inbox`."""
        begun = self.under_way.pop(number, None)
        if begun is not None and self._run is not None:
            self._run.failed(begun, code)

    def ended(self, reason: str) -> None:
        """See `adapter.Inbox`."""
        if self.session is not None:
            self.session = None
            if self._run is not None:
                self._run.ended(self, reason)
