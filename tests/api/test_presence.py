"""What others see of a user: statuses, devices, last seen; over several sessions, gateways, crashes and flushes."""

import pytest
import redis.asyncio

from api.decoding import decode
from api.envelope import PresenceMethod, TypingRequest
from api.presence import STATUS, Presence
from api.presence_view import (
    ChosenStatus,
    PresenceView,
)
from api.schema import PresenceRequest, SetPresenceRequest
from domain.errors import Invalid, Unavailable
from runtime.embedded.servers import EmbeddedServers
from streams import subjects
from streams.ports import Signal
from tests.api.presences import (
    Acquaintances,
    Clock,
    FakeSession,
    Presences,
    eventually,
    presences,
    world_fixture,  # noqa: F401  # the fixture `world`
)

AWAY_S = 300.0


# -- one gateway --------------------------------------------------------------------------------------------


async def test_a_user_is_online_while_a_session_is_there_and_then_last_seen(world: Presences) -> None:
    gate = world.gate(wall_ms=lambda: 1_800_000_000_000)
    assert await gate.view("bob") == PresenceView("bob", "offline")
    session = gate.connect("bob")
    assert await gate.until_is("bob", "online") == PresenceView("bob", "online", ("desktop",))
    gate.presence.disconnected(session)
    assert await gate.until_is("bob", "offline") == PresenceView("bob", "offline", (), "2027-01-15T08:00:00.000Z")


async def test_all_kinds_of_devices_are_told_each_once(world: Presences) -> None:
    gate = world.gate()
    first, second, third = (gate.connect("bob", kind) for kind in ("mobile", "desktop", "mobile"))
    await gate.until("bob", lambda view: view.devices == ("desktop", "mobile"))
    gate.presence.disconnected(first)
    gate.presence.disconnected(second)
    assert (await gate.until("bob", lambda view: view.devices == ("mobile",))).status == "online"
    gate.presence.disconnected(third)
    await gate.until_is("bob", "offline")


@pytest.mark.parametrize("status", ["busy", "away", "online"])
async def test_a_chosen_status_is_seen_and_outlives_the_session(world: Presences, status: ChosenStatus) -> None:
    gate = world.gate()
    session = gate.connect("bob")
    await gate.presence.set_status("bob", status)
    assert await gate.presence.chosen("bob") == status
    await gate.until_is("bob", status)
    gate.presence.disconnected(session)
    await gate.until_is("bob", "offline")
    gate.connect("bob")
    await gate.until_is("bob", status)


async def test_who_does_nothing_is_away_until_they_do_something(world: Presences) -> None:
    clock = Clock()
    gate = world.gate(clock=clock, refresh_s=0.02)
    idle, _other = gate.connect("bob"), gate.connect("carol")
    await gate.until_is("bob", "online")
    clock.now_s += AWAY_S - 1
    gate.presence.active(_other)
    clock.now_s += 1
    await gate.until_is("bob", "away")
    assert (await gate.view("carol")).status == "online"
    gate.presence.active(idle)
    await gate.until_is("bob", "online")


async def test_a_user_is_away_only_when_all_their_gateways_say_so(world: Presences) -> None:
    clock = Clock()
    still, busy = world.gate(clock=clock, refresh_s=0.02), world.gate()
    still.connect("bob", "web")
    await still.until_is("bob", "online")
    clock.now_s += AWAY_S
    await still.until_is("bob", "away")
    session = busy.connect("bob", "mobile")
    view = await still.until_is("bob", "online")
    assert view.devices == ("mobile", "web")
    busy.presence.disconnected(session)
    await still.until_is("bob", "away")


async def test_an_invisible_user_looks_as_one_who_left_when_they_chose_it(world: Presences) -> None:
    now_ms = 1_800_000_000_000
    gate = world.gate(wall_ms=lambda: now_ms)
    other = world.gate(wall_ms=lambda: now_ms)
    session = gate.connect("bob")
    await gate.until_is("bob", "online")
    await other.presence.set_status("bob", "invisible")
    hidden = await gate.until_is("bob", "offline")
    assert hidden == PresenceView("bob", "offline", (), "2027-01-15T08:00:00.000Z")
    assert await gate.presence.chosen("bob") == "invisible"
    now_ms += 60_000
    gate.presence.disconnected(session)
    gate.connect("carol")
    await gate.until_is("carol", "online")  # so the goodbye is written as well
    assert await gate.view("bob") == hidden
    gate.connect("bob")
    await gate.presence.set_status("bob", "online")
    await gate.until_is("bob", "online")


async def test_choosing_tells_the_user_s_own_sessions(world: Presences) -> None:
    heard: list[Signal] = []
    await world.bus.subscribe(subjects.live_user("bob"), heard.append)
    await world.gate().presence.set_status("bob", "busy")
    await eventually(lambda: len(heard) == 1)
    assert heard[0].headers == {subjects.SIGNAL: STATUS, subjects.SENDER: "bob"}
    assert heard[0].data == b'{"signal":{"type":"status","status":"busy"}}'


async def test_what_does_not_change_is_not_written(world: Presences) -> None:
    gate = world.gate()
    gate.connect("bob")
    await gate.until_is("bob", "online")
    heard: list[Signal] = []
    await world.bus.subscribe(subjects.live_presence("bob"), heard.append)
    for _ in range(100):
        gate.presence.active(gate.connect("bob"))
    await gate.watching("viewer", "bob")
    gate.connect("carol")
    await gate.until_is("carol", "online")
    assert len(heard) <= 1  # the further sessions of the same kind, in one batch


async def test_a_call_about_an_unknown_session_changes_nothing(world: Presences) -> None:
    gate = world.gate()
    stray = FakeSession("bob")
    gate.presence.disconnected(stray)
    gate.presence.active(stray)
    gate.presence.unwatch(stray, ["carol"])
    with pytest.raises(Unavailable):
        await gate.presence.watch(stray, ["carol"])
    assert await gate.view("bob") == PresenceView("bob", "offline")


# -- several gateways, crashes ------------------------------------------------------------------------------


async def test_a_gateway_that_stops_takes_its_users_offline_at_once(world: Presences) -> None:
    going, staying = world.gate(lease_s=60.0), world.gate(lease_s=60.0)
    going.connect("bob")
    going.connect("carol")
    staying.connect("carol")
    await staying.until_is("bob", "online")
    await going.stop()
    assert (await staying.view("bob")).status == "offline"
    assert (await staying.view("bob")).last_seen is not None
    assert (await staying.view("carol")).status == "online"


async def test_a_crash_takes_users_offline_with_the_lease_but_not_those_who_are_elsewhere(world: Presences) -> None:
    crashing, staying = world.gate(), world.gate(flap_s=60.0)
    for user_id in ("bob", "carol"):
        crashing.connect(user_id, "web")
    await staying.until_is("bob", "online")
    await staying.until_is("carol", "online")
    watcher = await staying.watching("viewer", "bob", "carol")
    await crashing.crash()
    staying.connect("carol", "mobile")
    await staying.until("bob", lambda view: view.status == "offline" and view.last_seen is not None)
    # Not held back for `flap_s`: a lease has gone by since the crash.
    await eventually(lambda: watcher.told("bob") == ["offline"])
    await eventually(lambda: watcher.signals[-1]["devices"] == ["mobile"] or len(watcher.signals) > 2)
    assert set(watcher.told("carol")) <= {"online"}
    assert (await staying.view("carol")).devices == ("mobile",)


async def test_what_a_crash_left_is_cleared_away(world: Presences, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.presence_store.FORGET_MS", -1)  # with the lease's last millisecond
    crashing, staying = world.gate(), world.gate()
    crashing.connect("bob")
    await staying.until_is("bob", "online")
    key = f"{world.prefix}presence:bob"
    await crashing.crash()
    seen = await staying.until_is("bob", "offline")
    assert await staying.view("bob") == seen
    assert set(await staying.valkey.hkeys(key)) == {b"last_seen"}


async def test_a_gateway_that_was_thought_dead_comes_back_with_all_its_users(world: Presences) -> None:
    gate, other = world.gate(), world.gate()
    gate.connect("bob")
    await other.until_is("bob", "online")
    key = f"{world.prefix}gateways"
    for lease in await gate.valkey.zrange(key, 0, -1):
        assert isinstance(lease, bytes)
        await gate.valkey.zadd(key, {lease: 1})
    await other.until_is("bob", "online")
    await gate.stop()
    await other.until_is("bob", "offline")


async def test_a_user_whose_key_was_evicted_is_written_again(world: Presences) -> None:
    gate = world.gate(refresh_s=0.02, rewrite_s=0.1)
    for number in range(20):
        gate.connect(f"u{number}")
    gate.connect("bob")
    await gate.until_is("bob", "online")
    for _ in range(3):
        await gate.valkey.delete(f"{world.prefix}presence:bob")
        await gate.until_is("bob", "online")


# -- what may be asked --------------------------------------------------------------------------------------


async def test_strangers_and_blockers_are_unknown(world: Presences) -> None:
    gate = world.gate()
    world.acquainted.apart.add(("viewer", "blocker"))
    for user_id in ("bob", "stranger", "blocker"):
        gate.connect(user_id)
    await gate.until_is("bob", "online")
    asked = ["stranger", "bob", "blocker", "stranger-who-does-not-exist", "bob"]
    of = await gate.presence.of("viewer", asked)
    watched = await gate.presence.watch(session := gate.connect("viewer"), asked)
    for answer in (of, watched):
        assert [view.user_id for view in answer.users] == ["bob"]
        assert answer.unknown == ["stranger", "blocker", "stranger-who-does-not-exist"]
    await gate.presence.set_status("blocker", "busy")
    await gate.presence.set_status("bob", "busy")
    await eventually(lambda: session.told("bob") == ["busy"])
    assert session.told("blocker") == []


async def test_users_see_themselves_as_others_do(world: Presences) -> None:
    gate = world.gate()
    world.acquainted.apart.add(("bob", "bob"))
    gate.connect("bob")
    await gate.until_is("bob", "online")
    assert (await gate.presence.of("bob", ["bob"])).users == [PresenceView("bob", "online", ("desktop",))]


@pytest.mark.parametrize("user_id", ["", "a b", "\0", "x" * 65, "é", "\ud800", "*/"])
async def test_what_is_no_user_id_is_refused_by_field(world: Presences, user_id: str) -> None:
    gate = world.gate()
    session = gate.connect("viewer")
    with pytest.raises(Invalid) as refused:
        await gate.presence.watch(session, ["bob", user_id])
    assert refused.value.field == "subscribe"
    with pytest.raises(Invalid) as refused:
        await gate.presence.of("viewer", [user_id])
    assert refused.value.field == "users"
    assert world.acquainted.asked == 0


async def test_a_thousand_users_are_refused(world: Presences) -> None:
    gate = world.gate()
    thousand = [f"u{number}" for number in range(1_000)]
    session = gate.connect("viewer")
    with pytest.raises(Invalid) as refused:
        await gate.presence.watch(session, thousand)
    assert refused.value.field == "subscribe"
    with pytest.raises(Invalid) as refused:
        await gate.presence.of("viewer", thousand)
    assert refused.value.field == "users"


async def test_a_session_watches_at_most_500_users_in_all(world: Presences) -> None:
    gate = world.gate()
    session = gate.connect("viewer")
    users = [f"u{number}" for number in range(500)]
    assert len((await gate.presence.watch(session, users)).users) == 500
    with pytest.raises(Invalid) as refused:
        await gate.presence.watch(session, ["one", "more"])
    assert refused.value.field == "subscribe"
    assert len((await gate.presence.watch(session, users[:10])).users) == 10  # they are watched already
    gate.presence.unwatch(session, ["u0", "u1", "nobody"])
    assert len((await gate.presence.watch(session, ["one", "more"])).users) == 2
    for other in (f"w{number}" for number in range(3)):
        await gate.watching(other, *users)  # the limit is a session's


async def test_without_read_models_nothing_is_watched(world: Presences) -> None:
    gate = world.gate()
    session = gate.connect("viewer")
    world.acquainted.down = True
    with pytest.raises(Unavailable):
        await gate.presence.watch(session, ["bob"])
    with pytest.raises(Unavailable):
        await gate.presence.of("viewer", ["bob"])


async def test_noting_works_before_anything_runs(servers: EmbeddedServers) -> None:
    async with presences(servers.valkey_url) as world:
        valkey = redis.asyncio.Redis.from_url(servers.valkey_url)
        presence = Presence(valkey, world.bus, Acquaintances(), prefix=world.prefix)
        session = FakeSession("bob")
        presence.connected(session)
        presence.active(session)
        presence.disconnected(session)
        await valkey.aclose()


# -- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        (b'{"status":"busy"}', SetPresenceRequest("busy")),
        (b'{"users":["bob","carol"]}', PresenceRequest(["bob", "carol"])),
        (b"{}", PresenceMethod()),
        (b'{"status":"away","subscribe":["bob"]}', PresenceMethod(status="away", subscribe=["bob"])),
        (b'{"unsubscribe":["bob"]}', PresenceMethod(unsubscribe=["bob"])),
        (b'{"conversation_id":"7","active":false}', TypingRequest("7", False)),
    ],
)
def test_a_request_has_its_shape(raw: bytes, shape: object) -> None:
    assert decode(raw, type(shape)) == shape


@pytest.mark.parametrize(
    ("raw", "shape", "field"),
    [
        (b'{"status":"offline"}', SetPresenceRequest, "status"),
        (b'{"status":null}', PresenceMethod, "status"),
        (b"{}", PresenceRequest, "users"),
        (b'{"subscribe":"bob"}', PresenceMethod, "subscribe"),
        (b'{"conversation_id":7,"active":true}', TypingRequest, "conversation_id"),
        (b'{"conversation_id":"7","active":1}', TypingRequest, "active"),
    ],
)
def test_another_shape_is_refused_by_field(raw: bytes, shape: type, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(raw, shape)
    assert refused.value.field == field
