"""Choosing events, and reading them out of several partitions as one."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import events
from domain.events import Event
from domain.ids import user_slot
from runtime.events.entry import Entry
from runtime.events.naming import NamedBadly, named
from runtime.events.reading import WINDOW, Reading
from runtime.events.selection import Selection
from streams import subjects
from streams.codec import Metadata, encode
from streams.memory import MemoryLog
from streams.moments import first_since
from streams.ports import Delivery, Record
from streams.topology import Topology
from tests.projections.history import append

PARTITIONS = 2
START = datetime(2026, 3, 1, tzinfo=UTC)
USERS = ("ann", "bob", "cid")
JUNK = Record("conv.1.junk", b"\x00junk", {})


@pytest.fixture
async def log() -> MemoryLog:
    """Three thousand events in two partitions of each family, stored one after the other, among them some junk."""
    log, rng = MemoryLog(), random.Random(5)
    await log.ensure(Topology(PARTITIONS))
    versions: dict[str, int] = {}
    for number in range(3_000):
        slot = rng.randrange(4)
        id_ = (1 << 40) + (slot << 12)
        actor, at = rng.choice(USERS), START + timedelta(seconds=number)
        if number % 500 == 499:
            await append(log, [JUNK], "CONV-1")
        made: tuple[type[Event], dict[str, Any]]
        family, aggregate = subjects.CONV, str(id_)
        match rng.randrange(4):
            case 0:
                made = (events.MemberAdded, {"user_id": rng.choice(USERS), "role": "member", "joined_seq": 1})
            case 1:
                family, aggregate, slot = subjects.USER, actor, user_slot(actor)
                made = (events.ReadMoved, {"conversation_id": id_, "seq": number})
            case _:
                said: dict[str, Any] = {
                    "body": {"type": "text", "text": f"number {number}\x1b[2J"},
                    "mentions": [],
                    "reply_to": None,
                }
                made = (events.MessagePosted, {"seq": 1, "message_id": number, "client_msg_id": "c", **said})
        version = versions[aggregate] = versions.get(aggregate, 0) + 1
        common: dict[str, Any] = {
            "originator_id": aggregate,
            "originator_version": version,
            "timestamp": at,
            "actor_id": actor,
        }
        subject = subjects.aggregate(family, slot % PARTITIONS, aggregate)
        stream = subjects.stream(family, slot % PARTITIONS)
        await append(log, [encode(made[0](**common, **made[1]), subject, Metadata())], stream)
    return log


async def everything(log: MemoryLog) -> list[Delivery]:
    streams = [subjects.stream(family, number) for family in subjects.FAMILIES for number in range(PARTITIONS)]
    found = [delivery for stream in streams async for delivery in log.read(stream)]
    return sorted(found, key=lambda delivery: delivery.stored_at)


async def read(log: MemoryLog, selection: Selection) -> list[Delivery]:
    reading = Reading(log, selection, selection.sources(PARTITIONS), lambda _stream, _sequence: None)
    return [entry.delivery async for entry in reading.all()]


async def test_all_partitions_are_one_sequence_by_time_and_nothing_is_left_out(log: MemoryLog) -> None:
    assert await read(log, Selection()) == await everything(log)


@pytest.mark.parametrize("count", [0, 1, 7, WINDOW + 500, 5_000])
async def test_the_newest_are_the_end_of_all(log: MemoryLog, count: int) -> None:
    for selection in (Selection(), Selection(user_id="ann"), Selection(types=("message.*",), partition="1")):
        reading = Reading(log, selection, selection.sources(PARTITIONS), lambda _stream, _sequence: None)
        newest = [entry.delivery for entry in await reading.newest(count)]
        assert newest == (await read(log, selection))[-count:][:count]


async def test_each_choice_takes_what_it_names(log: MemoryLog) -> None:
    every = [Entry.of(delivery) for delivery in await everything(log)]
    id_ = str((1 << 40) + (3 << 12))
    since, until = START + timedelta(seconds=1_000), START + timedelta(seconds=1_999)

    async def places(**chosen: Any) -> list[str]:
        return [Entry.of(delivery).place for delivery in await read(log, Selection(**chosen))]

    of_it = [entry for entry in every if entry.delivery.subject.endswith(id_)]
    assert await places(conversation_id=int(id_)) == [entry.place for entry in of_it]
    ann = [e for e in every if "ann" in (e.delivery.headers.get(subjects.ACTOR), e.user_id)]
    assert await places(user_id="ann") == [entry.place for entry in ann]
    both = [entry.place for entry in of_it if entry in ann]
    assert await places(conversation_id=int(id_), user_id="ann") == both
    reads = [entry.place for entry in every if entry.type == "read.moved"]
    assert await places(types=("read.*", "profile.updated")) == reads
    assert await places(partition="USER-1") == [place for place in reads if place.startswith("USER-1:")]
    between = [e.place for e in every if e.event is not None and since <= e.event.timestamp <= until]
    assert [place for place in await places(since=since, until=until) if place in between] == between
    assert len(between) == 1_000
    assert await places(types=("message.posted",), since=until, until=since) == []
    assert Selection(partition="2").sources(PARTITIONS) == []
    assert Selection(conversation_id=int(id_), types=("read.moved",)).sources(PARTITIONS) == []


async def test_following_brings_what_is_stored_later_once(log: MemoryLog) -> None:
    selection = Selection(partition="1")
    reading = Reading(log, selection, selection.sources(PARTITIONS), lambda _stream, _sequence: None)
    [last] = await reading.newest(1)
    following = reading.follow()
    assert await anext(following) == []
    await append(log, [JUNK, JUNK], "CONV-1")
    await append(log, [JUNK], "CONV-0")
    found = await anext(following)
    assert [entry.delivery.subject for entry in found] == ["conv.1.junk", "conv.1.junk"]
    assert found[0].delivery.stored_at >= last.delivery.stored_at
    assert await anext(following) == []


async def test_a_moment_is_found_by_halving(log: MemoryLog) -> None:
    deliveries = [delivery async for delivery in log.read("CONV-1")]
    times = [int(delivery.headers.get(subjects.OCCURRED_AT, 0)) for delivery in deliveries]
    for at_ms in (0, times[0], times[700] + 1, times[-1], times[-1] + 1):
        expected = next((number for number, time in enumerate(times, 1) if time >= max(at_ms, 1)), len(times) + 1)
        found = await first_since(log, "CONV-1", at_ms)
        assert found in {expected, expected - 1}  # what does not say its time comes with what follows
        assert all(time < at_ms for time in times[: found - 1] if time)


async def test_events_are_named_by_place_and_version(log: MemoryLog) -> None:
    id_ = str((1 << 40) + (3 << 12))

    async def found(name: str, versions: str | None = None) -> list[Entry]:
        return [entry async for entry in named(log, name, versions, partitions=PARTITIONS)]

    [entry] = await found("conv-1:3")
    assert entry.place == "CONV-1:3"
    assert [entry.version for entry in await found(id_, "7-9")] == [7, 8, 9]
    assert [entry.version for entry in await found(id_, "7")] == [7]
    for name, versions in [("CONV-1:99999", None), ("CONV-7:1", None), (id_, "0"), (id_, "9-7"), (id_, "1-5000")]:
        with pytest.raises(NamedBadly):
            await found(name, versions)
    with pytest.raises(NamedBadly, match="is at version"):
        await found(id_, "5000")
    with pytest.raises(NamedBadly, match="there is no conversation"):
        await found(str(1 << 50), "1")


async def test_an_event_is_readable_and_harmless_and_one_that_is_none_is_shown_as_such(log: MemoryLog) -> None:
    entries = [Entry.of(delivery) for delivery in await everything(log)]
    said = next(entry for entry in entries if entry.text)
    junk = next(entry for entry in entries if entry.error)
    for entry in (said, junk):
        assert all(character.isprintable() for character in entry.line())
        assert all(character.isprintable() for line in entry.whole().split("\n") for character in line)
        assert set(entry.as_dict()) == set(said.as_dict())
        assert json.loads(json.dumps(entry.as_dict())) == entry.as_dict()
    assert said.text is not None
    assert said.as_dict()["data"]["body"]["text"] == said.text
    assert said.as_dict()["data"]["message_id"].isdecimal()
    assert "\\u001b" in said.line()
    assert "cannot be decoded" in junk.line()
    assert junk.as_dict()["body_base64"] == "AGp1bms="
