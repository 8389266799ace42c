"""How long until the last of 2,000 connected members of a group of 10,000 has a message."""

from benchmarks.deployment import Deployment
from benchmarks.loads import loaded, trouble
from benchmarks.report import Figure, Pace
from runtime.bench.load import Load, Measure
from runtime.bench.population import one_group

MEMBERS = 10_000  # the most a group may have
CONNECTED = 2_000
RATE = 5.0  # messages a second: 10,000 deliveries a second, on the machine that also receives them
SIZE = 100
MOST_MS = 300.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """One of them posts, open loop; from when each message was due."""
    load = Load(
        rate=RATE,
        seconds=pace.seconds,
        warmup_s=pace.warmup_s,
        size=SIZE,
        headline=Measure.LAST,
        posters=1,
    )
    figures = loaded(deployment, load, one_group(MEMBERS, CONNECTED, 1))
    last = figures.latency_ms[Measure.LAST]
    return Figure(
        name=f"send → last of {CONNECTED:,} connected of {MEMBERS:,} members has it, p99",
        unit="ms",
        measured=last.p99,
        floor=None,
        target=f"≤ {MOST_MS:g} ms",
        met=last.p99 <= MOST_MS,
        latency_ms=last,
        notes=f"at {figures.acked_per_s:,.0f} msg/s, {figures.deliveries_per_s:,.0f} deliveries/s" + trouble(figures),
    )
