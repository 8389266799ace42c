"""Fan-out of one conversation to 1,000 sockets against the same bytes written straight to 1,000 transports."""

import uvloop

from benchmarks.deployment import Deployment
from benchmarks.floors import bare_fanout_server
from benchmarks.report import Figure, Pace
from runtime.bench.crowd import gather
from runtime.bench.fanout import FanoutReport, fan_out

MEMBERS = 1_000
WINDOW = 8
SIZE = 100
LEAST = 0.6


def run(deployment: Deployment, pace: Pace) -> Figure:
    """The same load generator, in this process, reads from a gateway and then from the bare server."""

    async def measure(url: str, tokens: list[str], conversation_id: str) -> FanoutReport:
        return await fan_out(
            url,
            tokens,
            conversation_id,
            seconds=pace.seconds,
            warmup_s=pace.warmup_s,
            size_bytes=SIZE,
            window=WINDOW,
        )

    seats = uvloop.run(gather(deployment.url, deployment.token, users=MEMBERS, conversations=1))
    tokens, conversation_id = [seat.token for seat in seats], seats[0].conversation_id
    gateway = uvloop.run(measure(deployment.url, tokens, conversation_id))
    with bare_fanout_server(gateway.push) as url:
        bare = uvloop.run(measure(url, tokens, conversation_id))
    return Figure(
        name=f"fan-out of one conversation to {MEMBERS:,} sockets, one gateway process",
        unit="deliveries/s",
        measured=gateway.deliveries_per_s,
        floor=bare.deliveries_per_s,
        target=f"≥ {LEAST:g} of the floor",
        met=gateway.deliveries_per_s >= LEAST * bare.deliveries_per_s,
        latency_ms=gateway.latency_ms,
        notes=f"{WINDOW} messages under way, {gateway.bytes_per_delivery:g} bytes a delivery "
        f"(bare server {bare.bytes_per_delivery:g}); the gateway's process also writes and projects each message",
    )
