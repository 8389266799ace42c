"""Pushes about others: what is told, when, to whom, and what is not."""

import asyncio

import pytest

from domain.errors import Unavailable
from runtime.embedded.servers import EmbeddedServers
from streams import subjects
from streams.jetstream import JetStream
from streams.memory import MemoryBus
from streams.memory.bus import MemorySubscription
from streams.ports import BusError, Signal
from tests.api.presences import (
    Clock,
    FakeSession,
    Gate,
    Presences,
    eventually,
    world_fixture,  # noqa: F401  # the fixture `world`
)


async def barrier(gate: Gate, watcher: FakeSession, at: Gate) -> None:
    """Wait until a watcher has been told of a change made now, hence of all that was to be told before."""
    marker = at.connect(f"marker-{len(watcher.signals)}")
    await gate.presence.watch(watcher, [marker.user_id])
    await at.presence.set_status(marker.user_id, "busy")
    await eventually(lambda: "busy" in watcher.told(marker.user_id))


async def test_changes_are_pushed_in_order_to_every_watcher(world: Presences) -> None:
    gate, other = world.gate(), world.gate()
    watchers = [await gate.watching(name, "bob") for name in ("carol", "dave", "carol")]
    session = other.connect("bob", "mobile")
    await eventually(lambda: all(watcher.told("bob") == ["online"] for watcher in watchers))
    await other.presence.set_status("bob", "busy")
    await eventually(lambda: all(watcher.told("bob") == ["online", "busy"] for watcher in watchers))
    other.presence.disconnected(session)
    await eventually(lambda: all(watcher.told("bob") == ["online", "busy", "offline"] for watcher in watchers))
    last = watchers[0].signals[-1]
    assert last.keys() == {"type", "user_id", "status", "devices", "last_seen"}
    assert (last["type"], last["devices"]) == ("presence", [])
    assert last["last_seen"] is not None


async def test_who_subscribes_twice_is_pushed_to_once(world: Presences) -> None:
    gate = world.gate()
    watcher = await gate.watching("viewer", "bob", "bob")
    await gate.presence.watch(watcher, ["bob"])
    gate.connect("bob")
    await eventually(lambda: watcher.told("bob") == ["online"])
    await barrier(gate, watcher, gate)
    assert watcher.told("bob") == ["online"]


async def test_after_unwatch_nothing_is_pushed_and_nothing_listened_to(world: Presences) -> None:
    gate = world.gate()
    staying, leaving = await gate.watching("carol", "bob"), await gate.watching("dave", "bob")
    gate.presence.unwatch(leaving, ["bob"])
    gate.connect("bob")
    await eventually(lambda: staying.told("bob") == ["online"])
    assert leaving.signals == []
    gate.presence.disconnected(staying)
    assert "bob" not in gate.presence._watches._watched
    await eventually(lambda: not world.bus.emit(Signal(subjects.live_presence("bob"), b"", {})))


async def test_a_session_that_has_ended_is_pushed_nothing(world: Presences) -> None:
    gate = world.gate()
    ended, there = await gate.watching("carol", "bob"), await gate.watching("dave", "bob")
    gate.presence.disconnected(ended)
    gate.connect("bob")
    await eventually(lambda: there.told("bob") == ["online"])
    assert ended.signals == []


async def test_flapping_is_not_shown(world: Presences) -> None:
    clock = Clock()
    gate, other = world.gate(clock=clock, flap_s=4.0), world.gate(flap_s=4.0)
    session = other.connect("bob", "mobile")
    other.connect("bob", "web")
    await gate.until("bob", lambda view: len(view.devices) == 2)
    watcher = await gate.watching("viewer", "bob")
    for _ in range(3):
        other.presence.disconnected(session)
        await gate.until("bob", lambda view: view.devices == ("web",))
        await barrier(gate, watcher, other)
        clock.now_s += 3.9
        session = other.connect("bob", "mobile")
        await gate.until("bob", lambda view: view.devices == ("mobile", "web"))
        await barrier(gate, watcher, other)
    assert watcher.told("bob") == []


async def test_offline_is_told_when_it_stays(world: Presences) -> None:
    clock = Clock()
    gate, other = world.gate(clock=clock, flap_s=4.0), world.gate()
    session = other.connect("bob")
    await gate.until_is("bob", "online")
    watcher = await gate.watching("viewer", "bob")
    other.presence.disconnected(session)
    await gate.until_is("bob", "offline")
    await barrier(gate, watcher, other)
    clock.now_s += 3.9
    await barrier(gate, watcher, other)
    assert watcher.told("bob") == []
    clock.now_s += 0.2
    await eventually(lambda: watcher.told("bob") == ["offline"])


async def test_a_status_is_told_although_a_device_may_come_back(world: Presences) -> None:
    clock = Clock()
    gate, other = world.gate(clock=clock, flap_s=4.0), world.gate()
    session = other.connect("bob", "mobile")
    other.connect("bob", "web")
    await gate.until("bob", lambda view: len(view.devices) == 2)
    watcher = await gate.watching("viewer", "bob")
    other.presence.disconnected(session)
    await other.presence.set_status("bob", "busy")
    await eventually(lambda: watcher.told("bob") == ["busy"])
    assert watcher.signals[-1]["devices"] == ["mobile", "web"]
    clock.now_s += 4.1
    await eventually(lambda: watcher.signals[-1]["devices"] == ["web"])


async def test_a_user_is_told_of_at_most_once_a_second_and_last_as_they_are(world: Presences) -> None:
    clock = Clock()
    gate, other = world.gate(clock=clock, push_every_s=1.0), world.gate()
    other.connect("bob")
    await gate.until_is("bob", "online")
    watcher = await gate.watching("viewer", "bob")
    for _ in range(10):
        await other.presence.set_status("bob", "busy")
        await other.presence.set_status("bob", "away")
    await barrier(gate, watcher, other)
    assert len(watcher.told("bob")) == 1
    await other.presence.set_status("bob", "online")
    await other.presence.set_status("bob", "away")
    await other.presence.set_status("bob", "busy")
    await barrier(gate, watcher, other)
    assert len(watcher.told("bob")) == 1
    clock.now_s += 1.0
    await barrier(gate, watcher, other)
    await other.presence.set_status("bob", "away")
    clock.now_s += 1.0
    await eventually(lambda: watcher.told("bob")[-1] == "away")
    assert len(watcher.told("bob")) <= 3


async def test_when_acquaintance_ends_so_do_the_pushes(world: Presences) -> None:
    gate = world.gate(recheck_s=0.05)
    watcher, other = await gate.watching("viewer", "bob", "carol"), await gate.watching("dave", "bob")
    world.acquainted.apart.add(("viewer", "bob"))
    await eventually(lambda: watcher.told("bob") == ["unknown"])
    gate.connect("bob")
    gate.connect("carol")
    await eventually(lambda: watcher.told("carol") == ["online"] and other.told("bob") == ["online"])
    assert watcher.told("bob") == ["unknown"]


async def test_acquaintance_that_cannot_be_checked_stays(world: Presences) -> None:
    gate = world.gate(recheck_s=0.02)
    watcher = await gate.watching("viewer", "bob")
    world.acquainted.down = True
    asked = world.acquainted.asked
    await eventually(lambda: world.acquainted.asked > asked + 2)
    gate.connect("bob")
    await eventually(lambda: watcher.told("bob") == ["online"])


class DeafBus(MemoryBus):
    """Loses every signal, or takes no subscription."""

    refuses = False

    def emit(self, signal: Signal, reply: str = "") -> int:
        return 0

    async def subscribe(self, subject, callback) -> MemorySubscription:  # type: ignore[no-untyped-def]
        if self.refuses:
            raise BusError("no")
        return await super().subscribe(subject, callback)


async def test_a_lost_notice_is_made_good_by_reading_again(world: Presences) -> None:
    gate = world.gate(bus=DeafBus(), recheck_s=0.1)
    watcher = await gate.watching("viewer", "bob")
    gate.connect("bob")
    await eventually(lambda: watcher.told("bob") == ["online"])


async def test_a_loss_on_the_bus_is_made_good_at_once(world: Presences) -> None:
    bus = DeafBus()
    gate = world.gate(bus=bus)
    watcher = await gate.watching("viewer", "bob")
    gate.connect("bob")
    await gate.until_is("bob", "online")
    bus.lose("the connection broke")
    await eventually(lambda: watcher.told("bob") == ["online"])


async def test_what_cannot_be_listened_to_is_not_watched(world: Presences) -> None:
    bus = DeafBus()
    gate = world.gate(bus=bus)
    session = gate.connect("viewer")
    bus.refuses = True
    outcomes = await asyncio.gather(
        *(gate.presence.watch(session, ["bob", user]) for user in ("carol", "dave")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2
    bus.refuses = False
    assert len((await gate.presence.watch(session, ["bob"])).users) == 1


async def test_two_gateways_over_nats(world: Presences, servers: EmbeddedServers) -> None:
    first, second = [await JetStream.connect(servers.nats_url, name=f"gateway {number}") for number in (1, 2)]
    here, there = world.gate(bus=first.bus), world.gate(bus=second.bus)
    odd = "b.o.b@x.y"  # dots are encoded in subjects
    watcher = await here.watching("viewer", odd, "carol")
    session = there.connect(odd, "tablet")
    await eventually(lambda: watcher.told(odd) == ["online"])
    await there.presence.set_status(odd, "busy")
    await eventually(lambda: watcher.told(odd) == ["online", "busy"])
    there.presence.disconnected(session)
    await eventually(lambda: watcher.told(odd) == ["online", "busy", "offline"])
    there.connect("carol")
    await eventually(lambda: watcher.told("carol") == ["online"])
    await there.crash()
    await eventually(lambda: watcher.told("carol") == ["online", "offline"])
    await here.stop()
    await asyncio.gather(first.close(), second.close())


@pytest.mark.parametrize("count", [600])
async def test_hundreds_of_changes_at_once_are_all_told(world: Presences, count: int) -> None:
    gate, other = world.gate(), world.gate()
    users = [f"u{number}" for number in range(count)]
    watchers = [await gate.watching("v", *users[:500]), await gate.watching("w", *users[500:])]
    for user_id in users:
        other.connect(user_id)
    await eventually(lambda: len(watchers[0].signals) + len(watchers[1].signals) >= count)
    assert {signal["user_id"] for watcher in watchers for signal in watcher.signals} == set(users)
