"""Presence when Valkey forgets, or is not there."""

import asyncio
from typing import Any

import pytest

from api.presence_view import (
    PresenceView,
)
from domain.errors import Unavailable
from runtime.embedded.child import free_port
from runtime.embedded.servers import EmbeddedServers
from runtime.embedded.valkey import ValkeyServer
from streams import subjects
from tests.api.presences import (
    Presences,
    database,
    eventually,
    presences,
    world_fixture,  # noqa: F401  # the fixture `world`
)


async def test_after_a_flush_everything_is_as_it_was_and_nobody_was_told_otherwise(servers: EmbeddedServers) -> None:
    async with presences(database(servers.valkey_url, 9)) as world:
        users = ["bob", "carol", "dave", "erin", "frank"]
        gate, other = world.gate(flap_s=2.0), world.gate(flap_s=2.0)
        for user_id in users:
            gate.connect(user_id, "web")
        other.connect("bob", "mobile")
        gone = other.connect("gina")
        await gate.until_is("gina", "online")
        other.presence.disconnected(gone)
        await gate.until_is("gina", "offline")
        users.append("gina")
        await world.bus.subscribe(subjects.live_user("frank"), lambda signal: gate.presence.hear_own("frank", signal))
        await gate.presence.set_status("carol", "busy")
        await gate.presence.set_status("dave", "invisible")
        await other.presence.set_status("frank", "away")
        await gate.until_is("carol", "busy")
        await gate.until("bob", lambda view: view.devices == ("mobile", "web"))
        await gate.until_is("dave", "offline")
        await gate.until_is("frank", "away")
        before = (await gate.presence.of("viewer", users)).users
        watcher = gate.connect("viewer")
        assert (await gate.presence.watch(watcher, users)).users == before

        await gate.valkey.flushdb()
        async with asyncio.timeout(10):
            while (await gate.presence.of("viewer", users)).users != before:
                await asyncio.sleep(0.01)
        marker = other.connect("marker")
        assert (await gate.presence.watch(watcher, ["marker"])).unknown == []
        await other.presence.set_status("marker", "busy")
        await eventually(lambda: watcher.told("marker")[-1:] == ["busy"])
        assert [signal for signal in watcher.signals if signal["user_id"] != "marker"] == []
        other.presence.disconnected(marker)


async def test_what_cannot_be_read_says_nothing(world: Presences) -> None:
    gate = world.gate()
    gate.connect("bob")
    await gate.until_is("bob", "online")
    key = f"{world.prefix}presence:bob"
    foreign = {"g:other": b"\xc1", "g:newer": b"\x91\x01", "status": b"x:dancing", "more": b"y"}
    for field, value in foreign.items():
        await gate.valkey.hset(key, field, value)
    assert await gate.view("bob") == PresenceView("bob", "online", ("desktop",))


async def test_without_valkey_presence_is_unknown_and_comes_back_with_it(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.presence_store.RETRY_S", 0.05)
    monkeypatch.setattr("api.users_here.RETRY_S", 0.05)
    monkeypatch.setattr("api.presence_watch.RETRY_S", 0.05)
    port = free_port()
    server = ValkeyServer(tmp_path / "valkey", tmp_path / "valkey.log", port)
    await server.child.start()
    async with presences(server.url) as world:
        gate = world.gate()
        gate.connect("bob")
        await gate.until_is("bob", "online")
        early = await gate.watching("early", "bob")
        await server.child.stop()

        assert await gate.until_is("bob", "unknown") == PresenceView("bob", "unknown")
        with pytest.raises(Unavailable):
            await gate.presence.set_status("bob", "busy")
        with pytest.raises(Unavailable):
            await gate.presence.chosen("bob")
        late = gate.connect("late")
        carol = gate.connect("carol")
        answer = await gate.presence.watch(late, ["bob", "carol"])
        # Of bob it is still known what was told; of carol nothing was ever read.
        assert [view.status for view in answer.users] == ["online", "unknown"]

        again = ValkeyServer(tmp_path / "valkey", tmp_path / "valkey.log", port)
        await again.child.start()
        try:
            await gate.until_is("bob", "online")
            await gate.until_is("carol", "online")
            await eventually(lambda: late.told("carol") == ["online"])
            assert early.signals == []
            gate.presence.disconnected(carol)
            await eventually(lambda: late.told("carol") == ["online", "offline"])
            await gate.stop()
        finally:
            await again.child.stop()
    out = capsys.readouterr().out
    assert out.count("presence needs Valkey") == 1, out
