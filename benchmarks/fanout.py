"""Fan-out of one conversation to 1,000 sockets against the same bytes written straight to 1,000 transports."""

from dataclasses import replace

from benchmarks.deployment import Deployment
from benchmarks.floors import bare_fanout_server
from benchmarks.loads import adapter_spec, trouble, whole
from benchmarks.report import Figure, Pace
from runtime.bench.load import Load, Measure
from runtime.bench.mark import START
from runtime.bench.population import one_group
from runtime.bench.running import prepare

MEMBERS = 1_000
WINDOW = 8
SIZE = 100
LEAST = 0.7


def run(deployment: Deployment, pace: Pace) -> Figure:
    """The same load generator, in this process, reads from a gateway and then from the bare server."""
    load = Load(
        closed=WINDOW,
        seconds=pace.seconds,
        warmup_s=pace.warmup_s,
        size=SIZE,
        headline=Measure.LAST,
        posters=1,
    )
    server = prepare(adapter_spec(deployment.url, deployment), load, one_group(MEMBERS, MEMBERS, 1))
    outcome = whole(server.round())
    gateway = server.report(outcome)
    push = next(line for line in outcome.sample.split(b"\n") if START in line)
    with bare_fanout_server(push) as url:
        bare = server.report(whole(replace(server, spec=adapter_spec(url, deployment)).round()))
    return Figure(
        name=f"fan-out of one conversation to {MEMBERS:,} sockets, one gateway process",
        unit="deliveries/s",
        measured=gateway.deliveries_per_s,
        floor=bare.deliveries_per_s,
        target=f"≥ {LEAST:g} of the floor",
        met=gateway.deliveries_per_s >= LEAST * bare.deliveries_per_s,
        latency_ms=gateway.latency_ms[Measure.LAST],
        notes=f"{WINDOW} messages under way, {gateway.bytes_per_delivery:g} bytes a delivery "
        f"(bare server {bare.bytes_per_delivery:g}); the gateway's process also writes and projects each message"
        + trouble(gateway),
    )
