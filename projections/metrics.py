"""What the projections count, for Prometheus."""

from prometheus_client import Counter, Gauge

APPLIED = Counter("riverrun_projection_events_total", "Events applied, once for each batch of projections", ["stream"])
POSITION = Gauge("riverrun_projection_sequence", "The sequence up to which all projections have applied", ["stream"])
DEAD = Counter("riverrun_projection_dead_total", "Events passed over and kept in DEAD", ["projection"])
FANNED_OUT = Counter("riverrun_fanout_signals_total", "Events addressed to users, once for each user", ["stream"])
SIGNALS = Counter(
    "riverrun_signals_total", "Typing and read receipts taken for members, by what became of them", ["outcome"]
)
AUDIENCE_LOADS = Counter("riverrun_audience_loads_total", "Conversations whose members had to be looked up", ["stream"])
HOT_EPOCHS = Counter("riverrun_hot_epochs_total", "Times the hot store began anew")
INBOXES = Counter("riverrun_inbox_pages_total", "Inbox pages by what answered: hot, rebuilt, postgres", ["source"])
