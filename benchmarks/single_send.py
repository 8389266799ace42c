"""One sender's send to ack against a raw publish with the expected last sequence."""

from benchmarks.deployment import Deployment
from benchmarks.durable_sends import sent, stored_message
from benchmarks.floors import expected_publishes
from benchmarks.loads import trouble
from benchmarks.report import Figure, Pace
from runtime.bench.load import Measure

MOST = 6.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """One sender, one conversation, one message at a time; p50 against p50."""
    figures = sent(deployment, pace, senders=1, conversations=1)
    acks = figures.latency_ms[Measure.ACK]
    floor = expected_publishes(deployment.nats_url, stored_message(deployment), pace.seconds)
    return Figure(
        name="one sender, send → ack, p50",
        unit="ms",
        measured=acks.p50,
        floor=floor.p50,
        target=f"≤ {MOST:g} times the floor",
        met=acks.p50 <= MOST * floor.p50,
        latency_ms=acks,
        notes=f"floor p99 {floor.p99:g} ms" + trouble(figures),
    )
