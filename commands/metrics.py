"""What the write side counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

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
