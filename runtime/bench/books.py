"""The books of one process's part of a run: what happens is entered as it does, what lies in the measured time counts.

A latency belongs to the time in which its operation was due, a completion and a delivery to that in which it came.
"""

from typing import Final

from runtime.bench.adapter import Op
from runtime.bench.inbox import Begun
from runtime.bench.load import Load, Measure
from runtime.bench.outcome import Outcome, Second

SECOND_US: Final = 1_000_000
MEASURES: Final = {Op.SEND: Measure.ACK, Op.READ: Measure.READ, Op.RECONNECT: Measure.RECONNECT}


class Books:
    """Nothing counts before `open`.

    Attributes:
        outcome: what it has come to.
        until_us: when the measured time ends.
        heard_us: when a delivery came last.
    """

    def __init__(self, load: Load) -> None:
        self.outcome = Outcome(seconds=load.seconds, series=[Second() for _ in range(max(1, round(load.seconds)))])
        self.until_us = self.heard_us = 0
        self._from_us = 0
        self._load = load
        self._deliveries = self.outcome.of(Measure.DELIVERY)

    def open(self, start_us: int) -> None:
        """The load begins at `start_us`, the measured time after the warm-up."""
        self._from_us = start_us + int(self._load.warmup_s * SECOND_US)
        self.until_us = self._from_us + int(self._load.seconds * SECOND_US)

    def due(self, due_us: int) -> None:
        """An operation was due."""
        self.outcome.due += self._from_us <= due_us

    def begun(self, due_us: int, now: int) -> None:
        """An operation of the open loop was begun."""
        if self._from_us <= due_us:
            self.outcome.lateness.record(now - due_us)

    def not_begun(self, due_us: int) -> None:
        """An operation could not be begun."""
        self.outcome.not_begun += self._from_us <= due_us

    def completed(self, begun: Begun, now: int) -> None:
        """An operation was answered."""
        self._record(MEASURES.get(begun.op), begun.due_us, now)
        if self._counts(now):
            self.outcome.completed[begun.op.value] += 1
            self.outcome.series[self._second(now)].completed += 1

    def failed(self, begun: Begun, why: str) -> None:
        """An operation was refused, or cut off; nobody may expect its message."""
        self.outcome.errors[f"{begun.op}: {why}"] += 1
        self._void(begun)

    def unanswered(self, begun: Begun, now: int) -> None:
        """An operation has no answer in the end: it counts with what it has waited."""
        self._void(begun)
        if self._counts(begun.due_us):
            self.outcome.unanswered += 1
            self._record(MEASURES.get(begun.op), begun.due_us, now)

    def received(self, payload: bytes, now: int) -> None:
        """Bytes with messages came."""
        self.heard_us = now
        if self._counts(now):
            self.outcome.received_bytes += len(payload)
            if not self.outcome.sample:
                self.outcome.sample = payload

    def delivered(self, due_us: int, now: int) -> None:
        """A message came, to one session."""
        if self._from_us <= due_us < self.until_us:
            self._deliveries.record(now - due_us)
        if self._from_us <= now < self.until_us:
            outcome = self.outcome
            outcome.deliveries += 1
            outcome.series[self._second(now)].deliveries += 1

    def last(self, key: int, due_us: int, now: int) -> None:
        """A message came to one more session, so far the last."""
        if self._from_us <= due_us < self.until_us:
            self.outcome.last[key] = (self._second(due_us), now - due_us)

    def incomplete(self, key: int, due_us: int, now: int) -> None:
        """A message has not come to every session in the end: it counts with what it has waited."""
        self.outcome.unanswered += self._counts(due_us)
        self.last(key, due_us, now)

    def _counts(self, at_us: int) -> bool:
        return self._from_us <= at_us < self.until_us

    def _second(self, at_us: int) -> int:
        """Of the measured time."""
        return min((at_us - self._from_us) // SECOND_US, len(self.outcome.series) - 1)

    def _record(self, measure: Measure | None, due_us: int, now: int) -> None:
        if measure is None or not self._counts(due_us):
            return
        self.outcome.of(measure).record(now - due_us)
        if measure is self._load.headline:
            self.outcome.series[self._second(due_us)].latencies.record(now - due_us)

    def _void(self, begun: Begun) -> None:
        if begun.key >= 0:
            self.outcome.void.add(begun.key)
