"""What the archiver counts, for Prometheus. How far it is behind is with the other readers' lag: reader `archive`."""

from prometheus_client import Counter, Gauge

from streams.buckets import Buckets

EVENTS = Counter("riverrun_archive_events_total", "Events archived", ["stream"])
UNDECODABLE = Counter(
    "riverrun_archive_undecodable_total", "Events archived raw only, because they cannot be decoded", ["stream"]
)
POSITION = Gauge("riverrun_archive_sequence", "The sequence up to which the stream is archived", ["stream"])
BATCH_EVENTS = Buckets("riverrun_archive_batch_events", "Events in one batch", (1, 10, 100, 500, 1_000, 2_000, 5_000))
SECONDS = Buckets(
    "riverrun_archive_seconds",
    "Time it took ClickHouse to take one batch, all tables",
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
