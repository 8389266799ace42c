"""What the gateway counts, for Prometheus."""

from prometheus_client import Counter, Gauge

from streams.buckets import Buckets

SESSIONS = Gauge("riverrun_sessions", "Open sessions", ["door"])
CLOSED = Counter("riverrun_sessions_closed_total", "Sessions closed by this side, by close code", ["code"])
CONVERSATIONS = Gauge("riverrun_live_conversations", "Conversations this gateway listens to")
EVENTS = Counter("riverrun_pushed_events_total", "Events of conversations with sessions here")
DELIVERIES = Counter("riverrun_deliveries_total", "Pushes: one event to one session")
FILLS = Counter("riverrun_fills_total", "Pages read of what push missed", ["what"])
AUDITED = Counter("riverrun_audits_total", "Times what was pushed was held against what can be read")
RESUMED = Counter("riverrun_resumes_total", "Sessions that came with a cursor, by whether they were recovered", ["how"])
DROPPED = Counter(
    "riverrun_push_dropped_total",
    "Pushes let go, to be resumed or read instead: for a slow session, an event that cannot be read, too many early",
    ["reason"],
)
PRESENCE_PENDING = Gauge("riverrun_presence_pending", "Users whose change of presence is to be written to Valkey")
PUSH_SECONDS = Buckets(
    "riverrun_push_seconds",
    "Time from an event's being stored to its being written to the connections of sessions here",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
