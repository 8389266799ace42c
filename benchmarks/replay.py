"""Replay of the `messages` projection from the log into an empty Postgres, against binary COPY of the same rows."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
import uvloop
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import Table

from benchmarks.deployment import Deployment
from benchmarks.report import Figure, Pace
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import IdSequence
from migrations.postgres.apply import upgrade
from projections import tables
from projections.messages import MessagesProjection
from projections.progress import Progress
from projections.worker import ProjectionWorker
from runtime.collector import spare_the_collector
from streams import codec, subjects
from streams.jetstream import JetStream
from streams.ports import BATCH_MAX, Log

DATABASE = "riverrun_bench_replay"
LEAST = 0.25
SETTLE_S = 60.0
EVENTS = 60_000
EVENTS_QUICK = 20_000


class Replay(MessagesProjection):
    """The projection itself, under a name of its own: its place in the log is not the live one's."""

    name = "bench-replay"


def run(deployment: Deployment, pace: Pace) -> Figure:
    """Tens of thousands of events, replayed once; the floor copies the rows that came of them."""
    last = uvloop.run(_filled(deployment.nats_url, EVENTS if pace.seconds >= 5 else EVENTS_QUICK))
    _settled(deployment.postgres_url, last)
    url = urlunsplit(urlsplit(deployment.postgres_url)._replace(path=f"/{DATABASE}"))
    with psycopg.connect(deployment.postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}")
        try:
            upgrade(url)
            events, replay_s = uvloop.run(_replayed(deployment.nats_url, url))
            rows, copy_s = copied(url, (tables.messages, tables.changes))
        finally:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    measured, floor = events / replay_s, events / copy_s
    return Figure(
        name="projection replay: messages and changes from the log into Postgres",
        unit="events/s",
        measured=measured,
        floor=floor,
        target=f"≥ {LEAST:g} of the floor",
        met=measured >= LEAST * floor,
        notes=f"{events:,} events, {rows:,} rows in {replay_s:.1f} s; the floor copies these rows, already built, into "
        f"two tables of the same shape in {copy_s:.1f} s. The live server is idle beside both",
    )


async def _filled(nats_url: str, least: int) -> int:
    """Append a conversation's messages until the log holds `least` events, as a writer would; its last sequence.

    The server's own writer finds its expectation failed at its next append, and reads the tail: the fence at work.
    """
    stream = subjects.stream(subjects.CONV, 0)
    jetstream = await JetStream.connect(nats_url, name="riverrun-bench")
    try:
        last = await jetstream.log.last_sequence(stream)
        if last >= least:
            return last
        now = datetime.now(UTC)
        ids = IdSequence(int(now.timestamp() * 1000) + 1000)
        conversation = Conversation.create(
            ids.next(0, 0), actor_id="filler", kind="group", members=["other"], name=None, settings={}, now=now
        )
        subject = subjects.aggregate(subjects.CONV, 0, conversation.id)
        while last < least:
            for _ in range(BATCH_MAX - 1):
                conversation.post_message(
                    actor_id="filler",
                    client_msg_id=f"m{conversation.version}",
                    text="words " * 16,
                    reply_to=None,
                    mentions=[],
                    new_id=lambda: ids.next(0, 0),
                    now=now,
                    was_looked_up=True,
                )
            events = cast("Sequence[Event]", conversation.collect_events())
            records = [codec.encode(event, subject, codec.Metadata()) for event in events]
            last = await jetstream.log.append(stream, records, expected_last_sequence=last)
        return last
    finally:
        await jetstream.close()


def _settled(postgres_url: str, last: int) -> None:
    """Wait until the live server's own read models have caught up: they would share the cores with the replay."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        deadline_s = time.monotonic() + SETTLE_S
        while (
            connection.execute("SELECT min(sequence) FROM checkpoints WHERE projection = 'messages'").fetchall()[0][0]
            < last
        ):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the live read models did not catch up within {SETTLE_S:.0f} s")
            time.sleep(0.1)


async def _replayed(nats_url: str, postgres_url: str) -> tuple[int, float]:
    jetstream = await JetStream.connect(nats_url, name="riverrun-bench")
    try:
        async with AsyncConnectionPool(postgres_url, min_size=1, max_size=2, open=False) as pool:
            return await _followed(jetstream.log, pool)
    finally:
        await jetstream.close()


async def _followed(log: Log, pool: AsyncConnectionPool) -> tuple[int, float]:
    last = await log.last_sequence(subjects.stream(subjects.CONV, 0))
    spare_the_collector()  # as every process of Riverrun's does
    progress = Progress()
    worker = ProjectionWorker(log, pool, [Replay()], partition=0, progress=progress)
    started = time.perf_counter()
    running = asyncio.create_task(worker.run())
    try:
        while worker.applied_sequence < last:
            await progress.wait(1.0)
            if running.done():
                running.result()
        return worker.events_total, time.perf_counter() - started
    finally:
        running.cancel()
        await asyncio.wait([running])


def copied(postgres_url: str, of: Sequence[Table]) -> tuple[int, float]:
    """Copy the rows of tables into tables of the same shape; how many, and the seconds of the copying."""
    total, seconds = 0, 0.0
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")  # as the projection does
        for table in of:
            as_they_came = " ORDER BY sequence" if "sequence" in table.columns else ""
            with connection.execute(f"SELECT * FROM {table.name}{as_they_came}", binary=True) as cursor:
                rows = cursor.fetchall()
                types = [column.type_code for column in cursor.description or ()]
            by = table.dialect_options["postgresql"]["partition_by"]
            partitioned = f" PARTITION BY {by}" if by else ""
            connection.execute(f"CREATE TABLE floor_{table.name} (LIKE {table.name} INCLUDING ALL){partitioned}")
            if by:
                connection.execute(f"CREATE TABLE floor_{table.name}_all PARTITION OF floor_{table.name} DEFAULT")
            started = time.perf_counter()
            statement = f"COPY floor_{table.name} FROM STDIN (FORMAT BINARY)"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            seconds += time.perf_counter() - started
            total += len(rows)
    return total, seconds
