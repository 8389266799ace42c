"""What the partitions' shares and the connections to NATS count, for Prometheus."""

from prometheus_client import Counter, Gauge

HELD = Gauge("riverrun_partitions_held", "Partitions' streams that this process works on", ["role"])
MOVES = Counter("riverrun_partition_moves_total", "Partitions' streams that came to this process or left it", ["role"])
NATS_RECONNECTS = Counter("riverrun_nats_reconnects_total", "Times a connection to NATS was lost and came back")
NATS_UNSENT_BYTES = Gauge("riverrun_nats_unsent_bytes", "Bytes for NATS that the system has not taken yet")
