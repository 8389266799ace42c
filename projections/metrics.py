"""What the projections count, for Prometheus."""

from prometheus_client import Counter, Gauge

APPLIED = Counter("riverrun_projection_events_total", "Events applied, once for each batch of projections", ["stream"])
POSITION = Gauge("riverrun_projection_sequence", "The sequence up to which all projections have applied", ["stream"])
DEAD = Counter("riverrun_projection_dead_total", "Events passed over and kept in DEAD", ["projection"])
FANNED_OUT = Counter("riverrun_fanout_signals_total", "Signals published to users", ["stream"])
