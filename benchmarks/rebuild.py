"""Rebuilding every projection from the log into an empty Postgres, against binary COPY of the same rows."""

import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import uvloop

from benchmarks.deployment import Deployment
from benchmarks.replay import copied
from benchmarks.report import Figure, Pace
from domain.events import ConversationCreated, Event, MessagePosted, ReadMoved, UserCreated
from domain.ids import compose
from migrations.postgres.apply import upgrade
from projections.catalogue import NAMES, tables_of
from projections.rebuild.rebuilding import Rebuilt
from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer
from runtime.rebuilding import PROCESSES_MIN, Servers, rebuilder
from streams import subjects
from streams.codec import Metadata, encode
from streams.jetstream import JetStream
from streams.ports import BATCH_MAX, Log
from streams.topology import Topology

DATABASE: Final = "riverrun_bench_rebuild"
TARGET: Final = 20_000  # events a second on two cores
EVENTS: Final = 300_000
EVENTS_QUICK: Final = 60_000
CONVERSATIONS: Final = 1_000
USERS: Final = 500
READ_EVERY: Final = 5  # messages for each move of a read marker
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD: Final = timedelta(days=90)
TEXT: Final = "a message of some seventy characters, as people write them in the evening"


def run(deployment: Deployment, pace: Pace) -> Figure:
    """Hundreds of thousands of events of three months, rebuilt once; the floor copies the rows that came of them."""
    url = urlunsplit(urlsplit(deployment.postgres_url)._replace(path=f"/{DATABASE}"))
    with psycopg.connect(deployment.postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}")
        try:
            upgrade(url)
            rebuilt, phases = uvloop.run(_rebuilt(url, EVENTS if pace.seconds >= 5 else EVENTS_QUICK))
            rows, copy_s = copied(url, [table for name in NAMES for table in tables_of(name)])
        finally:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    whole_s = sum(phases.values())
    measured, floor = rebuilt.events / whole_s, rebuilt.events / copy_s
    took = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in phases.items())
    return Figure(
        name="rebuild of all projections, from the log into Postgres",
        unit="events/s",
        measured=measured,
        floor=floor,
        target=f"≥ {TARGET:,}",
        met=measured >= TARGET,
        notes=f"{rebuilt.events:,} events, {rows:,} rows, {CONVERSATIONS:,} conversations: {took}; the floor "
        f"copies these rows, already built, into tables of the same shape in {copy_s:.1f} s. The live server is idle",
    )


async def _rebuilt(postgres_url: str, events: int) -> tuple[Rebuilt, dict[str, float]]:
    """What was rebuilt, and the seconds of each phase."""
    began: list[tuple[str, float]] = []

    def tell(phase: str, _done: int, _total: int) -> None:
        if not began or began[-1][0] != phase:
            began.append((phase, time.perf_counter()))

    async with nats_server() as nats_url:
        jetstream = await JetStream.connect(nats_url, name="riverrun-bench")
        try:
            await jetstream.log.ensure(Topology())
            await fill(jetstream.log, events)
        finally:
            await jetstream.close()
        servers = Servers(nats_url, postgres_url, "http://127.0.0.1:1/none", partitions=1, warm_months="0")
        processes = max(PROCESSES_MIN, os.cpu_count() or 1)
        began.append(("starting", time.perf_counter()))
        async with rebuilder(servers, processes=processes, tell=tell) as work:
            rebuilt = await work.rebuild(NAMES)
        began.append(("", time.perf_counter()))
    phases = {phase: after - at for (phase, at), (_, after) in pairwise(began)}
    return rebuilt, phases


@asynccontextmanager
async def nats_server() -> AsyncIterator[str]:
    """A nats-server of its own: what is appended is projected by nobody else."""
    with tempfile.TemporaryDirectory(prefix="riverrun-bench-", ignore_cleanup_errors=True) as folder:
        server = NatsServer(Path(folder) / "nats", Path(folder) / "nats.log", free_port(), free_port())
        await server.child.start()
        try:
            yield server.url
        finally:
            await server.child.stop()


async def fill(log: Log, events: int) -> None:
    """Conversations in which everybody writes, and users who read them, appended as writers would."""
    messages = events * READ_EVERY // (READ_EVERY + 1)
    step = PERIOD / messages
    first_ms = round(START.timestamp() * 1000)
    ids = [compose(first_ms + number, number % 1024, 0) for number in range(CONVERSATIONS)]
    await _append(log, subjects.CONV, _of_conversations(ids, messages, step))
    await _append(log, subjects.USER, _of_users(ids, messages // READ_EVERY, step * READ_EVERY))


async def _append(log: Log, family: str, events: Iterator[Event]) -> None:
    stream = subjects.stream(family, 0)
    last, batch = await log.last_sequence(stream), []
    for event in events:
        batch.append(encode(event, subjects.aggregate(family, 0, event.originator_id), Metadata()))
        if len(batch) == BATCH_MAX:
            last, batch = await log.append(stream, batch, expected_last_sequence=last), []
    if batch:
        await log.append(stream, batch, expected_last_sequence=last)


def _of_conversations(ids: Sequence[int], messages: int, step: timedelta) -> Iterator[Event]:
    members = {f"user{number}": "owner" if number == 0 else "member" for number in range(5)}
    for id_ in ids:
        yield ConversationCreated(
            originator_id=str(id_),
            originator_version=1,
            timestamp=START,
            actor_id="user0",
            originator_topic="conversation",
            kind="group",
            name=None,
            members=members,
            settings={},
        )
    for number in range(messages):
        seq = number // len(ids) + 1
        yield MessagePosted(
            originator_id=str(ids[number % len(ids)]),
            originator_version=seq + 1,
            timestamp=START + timedelta(milliseconds=round((number * step).total_seconds() * 1000)),
            actor_id=f"user{number % 5}",
            seq=seq,
            message_id=number + 1,
            client_msg_id=f"client-{number}",
            body={"type": "text", "text": TEXT},
            reply_to=None,
            mentions=[],
        )


def _of_users(ids: Sequence[int], moves: int, step: timedelta) -> Iterator[Event]:
    versions = dict.fromkeys((f"user{number}" for number in range(USERS)), 1)
    for user_id in versions:
        yield UserCreated(
            originator_id=user_id, originator_version=1, timestamp=START, actor_id=user_id, originator_topic="user"
        )
    for number in range(moves):
        user_id = f"user{number % USERS}"
        versions[user_id] += 1
        yield ReadMoved(
            originator_id=user_id,
            originator_version=versions[user_id],
            timestamp=START + timedelta(milliseconds=round((number * step).total_seconds() * 1000)),
            actor_id=user_id,
            conversation_id=ids[number % len(ids)],
            seq=number + 1,
        )
