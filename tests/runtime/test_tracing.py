"""Finding messages in the log, and the parts of a trace that a running server does not show on demand."""

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from psycopg_pool import AsyncConnectionPool

from api.frames import EventFrame
from api.sessions import SessionLimits
from api.trail import Trail
from projections.progress import Progress
from runtime.embedded.servers import EmbeddedServers
from runtime.tracing.locate import NotFound, locate
from runtime.tracing.trace import Sources, trace
from runtime.tracing.verdict import verdict
from streams import subjects
from streams.codec import decode
from streams.jetstream import JetStream
from streams.memory import MemoryLog
from streams.ports import BATCH_MAX, Record
from streams.topology import Topology
from tests.api.sockets import (
    OpenWorld,
    World,
    eventually,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)
from tests.conftest import NatsServerFactory
from tests.projections.conftest import database, pool  # noqa: F401  # fixtures
from tests.projections.history import History, append, chat
from tests.projections.workers import CannotApplyTheThird, applied, projections, running

LARGE = "x" * 8_000


async def _unknown(_conversation_id: int, _seq: int) -> int | None:
    return None


# -- finding it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_every_message_is_found_by_its_id_and_by_its_seq_among_whatever_else_is_there(seed: int) -> None:
    rng, log = random.Random(seed), MemoryLog()
    await log.ensure(Topology())
    history = History(log)
    for _ in range(rng.randint(1, 4)):
        history.create("ann", "bob")
    junk = Record(subjects.aggregate(subjects.CONV, 0, "7"), b"\xc1", {subjects.TYPE: "no.such"})
    appends: list[tuple[int, int]] = []
    for _ in range(40):
        for _ in range(rng.randint(1, 4)):
            history.post(rng.choice(history.conversations), "ann", "hello")
        # A writer's times never go back, whatever conversation they are of.
        records = sorted(history.records(), key=lambda record: int(record.headers[subjects.OCCURRED_AT]))
        records = [
            msgspec.structs.replace(records[0], headers={**records[0].headers, subjects.APPEND: f"a{len(appends)}"}),
            *records[1:],
        ]
        last = await append(log, records)
        appends.append((last - len(records) + 1, last))
        if rng.random() < 0.3:
            await append(log, [junk])
    for first, last in appends:
        async for delivery in log.read("CONV-0", after_sequence=first - 1, up_to_sequence=last):
            if delivery.headers[subjects.TYPE] != "message.posted":
                continue
            event: Any = decode(delivery)
            found = await locate(log, str(event.message_id), partitions=1, sequence_of=_unknown)
            by_seq = f"{subjects.aggregate_id(delivery.subject)}:{event.seq}"
            assert (await locate(log, by_seq, partitions=1, sequence_of=_unknown)) == found
            assert found.delivery.sequence == delivery.sequence
            assert found.append_first == first
    with pytest.raises(NotFound, match="was never stored"):
        await locate(log, str(history.new_id() + (1 << 40)), partitions=1, sequence_of=_unknown)


async def test_a_short_cut_that_is_wrong_is_not_believed() -> None:
    log = MemoryLog()
    await log.ensure(Topology())
    history = chat(log, 3)
    await history.append()

    async def wrong(_conversation_id: int, _seq: int) -> int | None:
        return 2

    found = await locate(log, f"{history.conversations[0].id}:3", partitions=1, sequence_of=wrong)
    assert found.event.seq == 3
    assert found.append_last - found.append_first <= BATCH_MAX


# -- a dead event, on real servers --------------------------------------------------------------------------


async def test_a_dead_event_is_named_with_its_reason(
    nats_server: NatsServerFactory,
    pool: AsyncConnectionPool,  # noqa: F811
    database: str,  # noqa: F811
    servers: EmbeddedServers,
) -> None:
    jetstream = await JetStream.connect((await nats_server()).url, name="test")
    try:
        await jetstream.log.ensure(Topology())
        history = chat(jetstream.log, 4)
        last = await history.append()
        messages = CannotApplyTheThird()
        others = [projection for projection in projections() if projection.name != "messages"]
        async with running(jetstream.log, pool, Progress(), [messages, *others]) as workers:
            await applied(workers, last)
        sources = Sources(jetstream.log, jetstream.bus, database, servers.valkey_url, partitions=1, fanout_limit=8)
        told = await trace(sources, f"{history.conversations[0].id}:2", user_id="bob")
    finally:
        await jetstream.close()
    assert (told.models.is_stored, told.models.is_told) == (False, False)
    [dead] = [projection for projection in told.models.projections if projection.dead]
    assert (dead.name, dead.dead) == ("messages", "ValueError: cannot be applied")
    assert told.message.sequence == 3
    assert told.members[0].verdict.startswith("It is not known whether bob was sent it: no gateway answered.")
    assert told.members[0].verdict.endswith(
        "the projection messages could not apply it (ValueError: cannot be applied)."
    )


# -- gateways -----------------------------------------------------------------------------------------------


def _sources(world: World, servers: EmbeddedServers, postgres_url: str) -> Sources:
    return Sources(world.log, world.bus, postgres_url, servers.valkey_url, partitions=1, fanout_limit=0)


async def test_a_session_closed_as_slow_is_the_reason(
    open_world: OpenWorld, servers: EmbeddedServers, postgres_url: str
) -> None:
    async with open_world(limits=SessionLimits(buffer_bytes=256 * 1024)) as world:
        conversation = await world.create("bob", "carol")
        slow, quick = await world.connect("bob"), await world.connect("carol")
        slow.connection.transport.pause_reading()
        posted: list[dict[str, Any]] = []
        while world.gateway.session_count == 2:
            posted += await asyncio.gather(*(quick.send(conversation, LARGE) for _ in range(20)))
            assert len(posted) < 5_000
        after = await quick.send(conversation, "after it was closed")
        await quick.until(lambda client: client.versions(conversation)[-1] == after["ok"]["version"])
        sources = _sources(world, servers, postgres_url)
        later = await trace(sources, after["ok"]["message_id"], user_id="bob")
        assert later.members[0].verdict.startswith("bob was not sent it: the websocket session ")
        assert "was closed as too slow at " in later.members[0].verdict
        assert "(3008), before it was stored, and no session has come back since." in later.members[0].verdict
        first = await trace(sources, posted[0]["ok"]["message_id"], user_id="bob")
        assert first.members[0].verdict.startswith("bob may not have got it: ")
        assert [session.close_code for _, session in first.members[0].sessions] == [3008]
        [gateway] = first.gateways.answers
        assert gateway.written_sessions == 2
        assert gateway.written_s is not None

        back = await world.connect("bob")
        again = await trace(sources, after["ok"]["message_id"], user_id="bob")
        assert back.hello["session_id"] in again.members[0].verdict
        assert again.members[0].verdict.startswith("bob was not pushed it: ")


async def test_what_is_older_than_a_gateway_remembers_is_not_guessed(
    open_world: OpenWorld, servers: EmbeddedServers, postgres_url: str
) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        version = await world.post(conversation)
        await bob.until(lambda client: client.versions(conversation)[-1:] == [version])
        await bob.close()
        await eventually(lambda: world.gateway.session_count == 0)
        told = await trace(_sources(world, servers, postgres_url), f"{conversation}:1", user_id="bob")
        [answer] = told.gateways.answers
        assert "was sent it" in told.members[0].verdict

        since_s = told.message.stored_at.timestamp() + 60
        forgot = msgspec.structs.replace(answer, ended_since_s=since_s, pushes_since_s=since_s)
        old = replace(told, gateways=replace(told.gateways, answers=[forgot]))
        member = replace(told.members[0], sessions=[])
        assert "is not known any more" in verdict(old, member)
        lost = replace(told, gateways=replace(told.gateways, missing=2))
        assert verdict(lost, member).startswith("It is not known whether bob was sent it: 2 of the gateways")


async def test_a_trail_is_bounded_and_says_since_when_it_knows() -> None:
    now = [100.0]
    trail = Trail(pushes_max=3, ended_max=2, clock=lambda: now[0])
    for version in range(1, 6):
        now[0] = 100.0 + version
        trail.pushed(EventFrame(7, version, b"{}", None, 0, stored_s=now[0] - 0.5), 2)
        await asyncio.sleep(0)
    assert [trail.push(7, version) is not None for version in range(1, 6)] == [False, False, True, True, True]
    push = trail.push(7, 4)
    assert push is not None
    assert (push.written_s, push.sessions) == (104.0, 2)
    assert trail.pushes_since_s == 103.0
    assert trail.ended_since_s == 100.0
    for number in range(3):
        now[0] = 200.0 + number
        trail.closed(_session(f"s{number}"), None)
    assert [ended.id for ended in trail.ended(["ann"])] == ["s1", "s2"]
    assert trail.ended_since_s == 201.0


def _session(session_id: str) -> Any:
    outlet = SimpleNamespace(door="websocket")
    return cast(
        "Any",
        SimpleNamespace(id=session_id, user_id="ann", outlet=outlet, device=None, began=None, left={}, placed=False),
    )
