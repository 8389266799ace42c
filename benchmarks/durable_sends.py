"""Durable sends through WebSocket against atomic batches written raw."""

import uvloop

from benchmarks.deployment import Deployment
from benchmarks.floors import RawNats, Stored, atomic_batches
from benchmarks.report import Figure, Pace
from runtime.bench import processes
from runtime.bench.crowd import gather
from runtime.bench.send import SendPlan, SendReport, report, send

SENDERS = 200
CONVERSATIONS = 20
SIZE = 100  # characters a message
LEAST = 0.25


def sent(deployment: Deployment, pace: Pace, *, senders: int, conversations: int) -> SendReport:
    """What closed-loop senders reach."""
    seats = uvloop.run(gather(deployment.url, deployment.token, users=senders, conversations=conversations))
    plan = SendPlan(deployment.url, seats, pace.seconds, pace.warmup_s, SIZE)
    return report(processes.run(send, [plan]), pace.seconds)


def stored_message(deployment: Deployment) -> Stored:
    """The newest message of the log, so that a floor writes what Riverrun writes."""
    nats = RawNats(deployment.nats_url)
    try:
        return nats.last_stored("CONV-0")
    finally:
        nats.close()


def trouble(figures: SendReport) -> str:
    """What went wrong in a run, for the notes; empty when nothing did."""
    if figures.errors or figures.unanswered:
        return f"; errors {figures.errors}, unanswered {figures.unanswered}"
    return ""


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
        latency_ms=figures.latency_ms,
        notes=f"every sender also gets its conversation's pushes: {figures.pushes_per_s:,.0f} events/s"
        + trouble(figures),
    )
