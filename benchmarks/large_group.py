"""How long until the last of 2,000 connected members of a group of 10,000 has a message."""

import uvloop

from benchmarks.deployment import Deployment
from benchmarks.report import Figure, Pace
from runtime.bench.crowd import gather
from runtime.bench.fanout import FanoutReport, fan_out

MEMBERS = 10_000  # the most a group may have
CONNECTED = 2_000
RATE = 5.0  # messages a second: 10,000 deliveries a second, on the machine that also receives them
SIZE = 100
MOST_MS = 300.0


def run(deployment: Deployment, pace: Pace) -> Figure:
    """One of them posts, open loop; from when each message was due."""

    async def measure() -> FanoutReport:
        seats = await gather(deployment.url, deployment.token, users=MEMBERS, conversations=1)
        return await fan_out(
            deployment.url,
            [seat.token for seat in seats[:CONNECTED]],
            seats[0].conversation_id,
            seconds=pace.seconds,
            warmup_s=pace.warmup_s,
            size_bytes=SIZE,
            rate=RATE,
        )

    report = uvloop.run(measure())
    return Figure(
        name=f"send → last of {CONNECTED:,} connected of {MEMBERS:,} members has it, p99",
        unit="ms",
        measured=report.latency_ms.p99,
        floor=None,
        target=f"≤ {MOST_MS:g} ms",
        met=report.latency_ms.p99 <= MOST_MS,
        latency_ms=report.latency_ms,
        notes=f"at {report.messages_per_s:,.0f} msg/s, {report.deliveries_per_s:,.0f} deliveries/s",
    )
