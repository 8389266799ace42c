"""How long until the last of 100 members has a message, at half of the rate that the conversation can take."""

import uvloop

from benchmarks.deployment import Deployment
from benchmarks.report import Figure, Pace
from runtime.bench.crowd import gather
from runtime.bench.fanout import FanoutReport, fan_out

MEMBERS = 100
WINDOW = 16  # enough under way that neither side waits for the other
SIZE = 100
MOST_MS = 50.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """The maximum by closed loop first, then half of it by open loop, from when each message was due."""

    async def measure(rate: float | None) -> FanoutReport:
        seats = await gather(deployment.url, deployment.token, users=MEMBERS, conversations=1)
        return await fan_out(
            deployment.url,
            [seat.token for seat in seats],
            seats[0].conversation_id,
            seconds=pace.seconds,
            warmup_s=pace.warmup_s,
            size_bytes=SIZE,
            window=WINDOW,
            rate=rate,
        )

    fastest = uvloop.run(measure(None))
    half = uvloop.run(measure(fastest.messages_per_s / 2))
    return Figure(
        name=f"send → last of {MEMBERS} members has it, p99",
        unit="ms",
        measured=half.latency_ms.p99,
        floor=None,
        target=f"≤ {MOST_MS:g} ms",
        met=half.latency_ms.p99 <= MOST_MS,
        latency_ms=half.latency_ms,
        notes=f"at {half.messages_per_s:,.0f} msg/s; the maximum of one conversation of {MEMBERS} connected members, "
        f"one of whom posts with {WINDOW} under way, is {fastest.messages_per_s:,.0f} msg/s "
        f"({fastest.deliveries_per_s:,.0f} deliveries/s)",
    )
