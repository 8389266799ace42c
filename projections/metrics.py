"""What the projections count, for Prometheus."""

from prometheus_client import Counter, Gauge

from streams.buckets import Buckets

APPLIED = Counter("riverrun_projection_events_total", "Events applied, once for each batch of projections", ["stream"])
POSITION = Gauge("riverrun_projection_sequence", "The sequence up to which all projections have applied", ["stream"])
BATCH_EVENTS = Buckets(
    "riverrun_projection_batch_events", "Events in one transaction", (1, 2, 5, 10, 20, 50, 100, 200, 500)
)
COMMIT_SECONDS = Buckets(
    "riverrun_projection_commit_seconds",
    "Time of one transaction: rows and checkpoints",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
LAG_EVENTS = Gauge("riverrun_reader_lag_events", "Events stored and not handled yet", ["reader", "stream"])
LAG_SECONDS = Gauge(
    "riverrun_reader_lag_seconds",
    "How long the oldest event not handled has waited, within a second",
    ["reader", "stream"],
)
HOT_FEED_PENDING = Gauge("riverrun_hot_feed_pending", "Conversations and own entries to write to Valkey", ["stream"])
SIGNALS_WAITING = Gauge("riverrun_signals_waiting", "Typing and read receipts that wait to be forwarded")
DEAD = Counter("riverrun_projection_dead_total", "Events passed over and kept in DEAD", ["projection"])
FANNED_OUT = Counter("riverrun_fanout_signals_total", "Events addressed to users, once for each user", ["stream"])
SIGNALS = Counter(
    "riverrun_signals_total", "Typing and read receipts taken for members, by what became of them", ["outcome"]
)
AUDIENCE_LOADS = Counter("riverrun_audience_loads_total", "Conversations whose members had to be looked up", ["stream"])
HOT_EPOCHS = Counter("riverrun_hot_epochs_total", "Times the hot store began anew")
INBOXES = Counter("riverrun_inbox_pages_total", "Inbox pages by what answered: hot, rebuilt, postgres", ["source"])
COLD_SECONDS = Buckets(
    "riverrun_cold_read_seconds",
    "Time of one read of the cold tier for a client",
    (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
MOVED = Counter("riverrun_tier_moved_rows_total", "Rows that have left Postgres for ClickHouse", ["model"])
LEFT_OVER = Gauge(
    "riverrun_tier_months_not_moved", "Months that could not be moved in the last round, by why", ["outcome"]
)
