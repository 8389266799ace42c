"""What the write side counts, for Prometheus."""

import collections
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram

from commands.command import Command, Result
from domain.errors import DomainError

_EVENTS = Counter("riverrun_writer_events_total", "Events appended", ["stream"])
_SEQUENCE = Gauge("riverrun_writer_sequence", "The stream's last sequence, as of this writer's last append", ["stream"])
_GROUP_SIZE = Histogram(
    "riverrun_writer_group_size",
    "Events in one append (group commit)",
    ["stream"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
_APPEND_SECONDS = Histogram(
    "riverrun_writer_append_seconds",
    "Time of one durable append",
    ["stream"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
_CONFLICTS = Counter("riverrun_writer_conflicts_total", "Appends refused because another writer appended", ["stream"])
_UNKNOWN = Counter("riverrun_writer_unknown_total", "Appends whose outcome had to be found out", ["stream"])
_REFUSED = Counter("riverrun_writer_refused_total", "Commands refused because the queue was full", ["stream"])
_CACHE_BYTES = Gauge("riverrun_writer_cache_bytes", "Memory of the aggregates held", ["stream"])
_WAITING = Gauge("riverrun_writer_waiting_commands", "Commands in the queue", ["stream"])
_PARKED = Gauge("riverrun_writer_parked_commands", "Commands whose lane waits for something to be loaded", ["stream"])
_ASIDES = Gauge("riverrun_writer_asides_commands", "Commands put aside because they came too soon", ["stream"])
_COMMANDS = Counter(
    "riverrun_commands_total",
    "Commands answered: done, duplicate, internal (a defect of ours), or the code of the refusal",
    ["command", "outcome"],
)


class WriterMetrics:
    """The figures of one partition's writer."""

    def __init__(self, stream: str) -> None:
        self.events = _EVENTS.labels(stream)
        self.sequence = _SEQUENCE.labels(stream)
        self.group_size = _GROUP_SIZE.labels(stream)
        self.append_seconds = _APPEND_SECONDS.labels(stream)
        self.conflicts = _CONFLICTS.labels(stream)
        self.unknown = _UNKNOWN.labels(stream)
        self.refused = _REFUSED.labels(stream)
        self.cache_bytes = _CACHE_BYTES.labels(stream)
        self._stream = stream

    def show(self, waiting: Callable[[], int], parked: Callable[[], int], asides: Callable[[], int]) -> None:
        """Show how many commands wait, asked for whenever somebody looks."""
        _WAITING.labels(self._stream).set_function(waiting)
        _PARKED.labels(self._stream).set_function(parked)
        _ASIDES.labels(self._stream).set_function(asides)

    def forget(self) -> None:
        """Show no more how things stand here: the partition is another node's. What was counted stays counted."""
        for gauge in (_SEQUENCE, _CACHE_BYTES, _WAITING, _PARKED, _ASIDES):
            gauge.remove(self._stream)


def answered(outcomes: Iterable[tuple[Command, Result | Exception]]) -> None:
    """Count commands that are answered, all of a group at once."""
    counts = collections.Counter((type(command).__name__, _outcome(outcome)) for command, outcome in outcomes)
    for labels, count in counts.items():
        _COMMANDS.labels(*labels).inc(count)


def _outcome(outcome: Result | Exception) -> str:
    if isinstance(outcome, DomainError):
        return outcome.code
    if isinstance(outcome, Exception):
        return "internal"
    return "duplicate" if getattr(outcome, "duplicate", False) else "done"
