"""Durable sends through WebSocket against atomic batches written raw."""

from benchmarks.deployment import Deployment
from benchmarks.floors import RawNats, Stored, atomic_batches
from benchmarks.loads import loaded, trouble
from benchmarks.report import Figure, Pace
from runtime.bench.load import Load, Measure
from runtime.bench.population import evenly
from runtime.bench.report import Report

SENDERS = 200
CONVERSATIONS = 20
SIZE = 100  # characters a message
LEAST = 0.35


def sent(deployment: Deployment, pace: Pace, *, senders: int, conversations: int) -> Report:
    """What senders reach that have one message under way each."""
    load = Load(closed=senders, seconds=pace.seconds, warmup_s=pace.warmup_s, size=SIZE)
    return loaded(deployment, load, evenly(senders, conversations, 1))


def stored_message(deployment: Deployment) -> Stored:
    """The newest message of the log, so that a floor writes what Riverrun writes."""
    nats = RawNats(deployment.nats_url)
    try:
        return nats.last_stored("CONV-0")
    finally:
        nats.close()


def run(deployment: Deployment, pace: Pace) -> Figure:
    """200 senders, each in one of 20 conversations, post as soon as the last message is acked."""
    figures = sent(deployment, pace, senders=SENDERS, conversations=CONVERSATIONS)
    floor = atomic_batches(deployment.nats_url, stored_message(deployment), pace.seconds)
    return Figure(
        name=f"durable sends, {SENDERS} senders in {CONVERSATIONS} conversations",
        unit="acked msg/s",
        measured=figures.acked_per_s,
        floor=floor,
        target=f"≥ {LEAST:g} of the floor",
        met=figures.acked_per_s >= LEAST * floor,
        latency_ms=figures.latency_ms[Measure.ACK],
        notes=f"every sender also gets its conversation's pushes: {figures.deliveries_per_s:,.0f} events/s"
        + trouble(figures),
    )
