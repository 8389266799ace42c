"""What a process saw of a run, and how those of several processes and rounds become one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.bench.histogram import Histogram
from runtime.bench.load import Measure


@dataclass(slots=True)
class Second:
    """One second of the measured time.

    Attributes:
        completed: operations whose answer came in it, and `deliveries` that did.
        latencies: of the headline's operations that were due in it.
    """

    completed: int = 0
    deliveries: int = 0
    latencies: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Outcome:
    """Counts and latencies. Counted is what was due in the measured time.

    Attributes:
        seconds: of measured time.
        due: operations that were due, by the schedule; those begun in the closed loop.
        completed: by operation, those whose answer came within the measured time.
        deliveries, received_bytes: messages that came within the measured time, one a session, and what they came in.
        errors: refusals by operation and code, ended sessions by reason.
        unanswered: operations without an answer when waiting ended. They count in the latencies with that wait.
        not_begun: operations that were due and could not be begun, because too many were under way.
        missing: by key of a message, in how many sessions it never came; `void`: keys that nobody may expect, because
            the server has not acked them.
        doubled, disordered: deliveries that came again, and that came after a later one of the same sender.
        sessions: that were open at the end.
        lateness: how long after it was due an operation was begun: what the load generator itself adds.
        cpu_s: CPU time of each process of the load, over `wall_s`.
        memory_bytes: resident, of the server's processes, with all sessions open.
        server_cpu_s: CPU time of the server's processes, over `wall_s`.
        last: by key of a message, in which second it was due, and after how long its last delivery was here.
        sample: one delivery as it came.
    """

    seconds: float = 0.0
    due: int = 0
    completed: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    received_bytes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    not_begun: int = 0
    missing: Counter[int] = field(default_factory=Counter)
    void: set[int] = field(default_factory=set)
    doubled: int = 0
    disordered: int = 0
    sessions: int = 0
    latencies: dict[Measure, Histogram] = field(default_factory=dict)
    lateness: Histogram = field(default_factory=Histogram)
    series: list[Second] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    memory_bytes: dict[str, int] = field(default_factory=dict)
    server_cpu_s: dict[str, float] = field(default_factory=dict)
    last: dict[int, tuple[int, int]] = field(default_factory=dict)
    sample: bytes = b""

    def of(self, measure: Measure) -> Histogram:
        """The histogram of a measure, an empty one if there was none."""
        return self.latencies.setdefault(measure, Histogram())

    @property
    def missed(self) -> int:
        """Deliveries that never came."""
        return sum(sessions for key, sessions in self.missing.items() if key not in self.void)

    def _add(self, other: "Outcome") -> None:
        self.due += other.due
        self.completed.update(other.completed)
        self.deliveries += other.deliveries
        self.received_bytes += other.received_bytes
        self.errors.update(other.errors)
        self.unanswered += other.unanswered
        self.not_begun += other.not_begun
        self.missing.update(other.missing)
        self.void |= other.void
        self.doubled += other.doubled
        self.disordered += other.disordered
        self.lateness.add(other.lateness)
        self.sample = self.sample or other.sample
        for measure, histogram in other.latencies.items():
            self.of(measure).add(histogram)


def of_processes(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of those of processes that ran at the same time.

    A message is complete when the last process has it in all sessions.
    """
    whole = Outcome(seconds=outcomes[0].seconds, wall_s=max(outcome.wall_s for outcome in outcomes))
    whole.series = [Second() for _ in outcomes[0].series]
    for outcome in outcomes:
        whole._add(outcome)
        whole.sessions += outcome.sessions
        whole.cpu_s += outcome.cpu_s
        whole.memory_bytes |= outcome.memory_bytes
        whole.server_cpu_s |= outcome.server_cpu_s
        for key, (second, latency_us) in outcome.last.items():
            whole.last[key] = (second, max(latency_us, whole.last.get(key, (0, 0))[1]))
        for mine, other in zip(whole.series, outcome.series, strict=True):
            mine.completed += other.completed
            mine.deliveries += other.deliveries
            mine.latencies.add(other.latencies)
    for second, latency_us in whole.last.values():
        whole.of(Measure.LAST).record(latency_us)
        whole.series[second].latencies.record(latency_us)
    whole.last.clear()
    return whole


def of_rounds(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of those of rounds that ran one after the other."""
    whole = Outcome(cpu_s=[0.0] * len(outcomes[0].cpu_s))
    for outcome in outcomes:
        whole._add(outcome)
        whole.seconds += outcome.seconds
        whole.wall_s += outcome.wall_s
        whole.sessions = max(whole.sessions, outcome.sessions)
        whole.cpu_s = [before + more for before, more in zip(whole.cpu_s, outcome.cpu_s, strict=True)]
        whole.memory_bytes = outcome.memory_bytes
        whole.series += outcome.series
        for name, cpu_s in outcome.server_cpu_s.items():
            whole.server_cpu_s[name] = whole.server_cpu_s.get(name, 0.0) + cpu_s
    return whole
