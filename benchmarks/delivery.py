"""How long until the last of 100 members has a message, at half of the rate that the conversation can take."""

from dataclasses import replace

from benchmarks.deployment import Deployment
from benchmarks.loads import loaded, trouble
from benchmarks.report import Figure, Pace
from runtime.bench.load import Load, Measure
from runtime.bench.population import one_group

MEMBERS = 100
WINDOW = 16  # enough under way that neither side waits for the other
SIZE = 100
MOST_MS = 50.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """The maximum by closed loop first, then half of it by open loop, from when each message was due."""
    load = Load(
        closed=WINDOW,
        seconds=pace.seconds,
        warmup_s=pace.warmup_s,
        size=SIZE,
        headline=Measure.LAST,
        posters=1,
    )
    group = one_group(MEMBERS, MEMBERS, 1)
    fastest = loaded(deployment, load, group)
    half = loaded(deployment, replace(load, rate=fastest.acked_per_s / 2), group)
    last = half.latency_ms[Measure.LAST]
    return Figure(
        name=f"send → last of {MEMBERS} members has it, p99",
        unit="ms",
        measured=last.p99,
        floor=None,
        target=f"≤ {MOST_MS:g} ms",
        met=last.p99 <= MOST_MS,
        latency_ms=last,
        notes=f"at {half.acked_per_s:,.0f} msg/s; the maximum of one conversation of {MEMBERS} connected members, "
        f"one of whom posts with {WINDOW} under way, is {fastest.acked_per_s:,.0f} msg/s "
        f"({fastest.deliveries_per_s:,.0f} deliveries/s)" + trouble(half),
    )
