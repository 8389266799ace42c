"""A session that comes again is pushed exactly what it missed, and what is lost without a trace is found."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from api.sessions import SessionLimits
from commands.users import MoveRead, RegisterDevice, RevokeDevice
from domain.fanout import reads, writes
from streams import subjects
from streams.cursor import Cursor
from streams.ports import Signal
from tests.api.sockets import (
    Client,
    OpenWorld,
    World,
    eventually,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)

pytestmark = pytest.mark.parametrize("open_world", [0, 100], indirect=True, ids=["read", "write"])

SOON = SessionLimits(audit_s=0.1, cursor_s=0.2, ping_s=1)


def _has(conversation: int, last: int) -> Callable[[Client], bool]:
    return lambda client: client.versions(conversation)[-1:] == [last]


def _is_event(signal: Signal) -> bool:
    return subjects.NATS_SUBJECT in signal.headers


async def _resumed(world: World, before: Client, **parameters: object) -> Client:
    """The same client again, with its newest cursor."""
    cursor = before.cursors[-1] if before.cursors else before.hello["cursor"]
    return await world.connect("bob", cursor=cursor, **parameters)


async def test_what_was_missed_comes_first_and_once(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        one, two = await world.create("bob"), await world.create("bob")
        bob = await world.connect("bob")
        first = await world.post(one, 2)
        await bob.until(_has(one, first))
        await bob.until(lambda client: client.newest_is_told)
        await bob.close()
        await world.post(two, 3)
        await world.post(one)
        again = await _resumed(world, bob)
        assert again.hello["recovered"] is True
        last = await world.post(one)
        await again.until(_has(one, last))
        assert again.versions(one) == [first + 1, last]
        assert again.versions(two) == [2, 3, 4]
        assert [event["conversation_id"] for event in again.events] == [str(two)] * 3 + [str(one)] * 2


async def test_versions_tell_what_was_pushed_since_the_cursor(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(cursor_s=60)) as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        last = await world.post(conversation, 3)
        await bob.until(_has(conversation, last))
        await bob.close()
        doubled = await world.connect("bob", cursor=bob.hello["cursor"])
        await doubled.until(_has(conversation, last))
        assert doubled.versions(conversation) == [2, 3, 4]  # it did not say what it has
        exact = await world.connect("bob", cursor=bob.hello["cursor"], versions={str(conversation): last - 1})
        await exact.until(_has(conversation, last))
        assert exact.versions(conversation) == [last]


async def test_a_graceful_end_tells_the_cursor_of_all_that_was_pushed(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(cursor_s=60)) as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        last = await world.post(conversation, 2)
        await bob.until(_has(conversation, last))
        world.bus.lose("a test says so")
        assert await bob.closed() == 3010
        again = await _resumed(world, bob)
        following = await world.post(conversation)
        await again.until(_has(conversation, following))
        assert again.versions(conversation) == [following]


async def test_conversations_joined_left_and_rejoined_meanwhile_are_told(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        left, rejoined = await world.create("bob"), await world.create("bob")
        old = await world.create("carol")
        await world.post(old, 5)
        bob = await world.connect("bob")
        await bob.close()
        await world.post(left)
        await world.change(left, remove=["bob"])  # version 3
        await world.post(left)
        await world.change(rejoined, remove=["bob"])
        await world.post(rejoined)
        await world.change(rejoined, add=["bob"])  # version 4
        await world.change(old, add=["bob"])  # version 7
        new = await world.create("bob")
        again = await _resumed(world, bob)
        last = await world.post(new)
        await again.until(_has(new, last))
        assert again.hello["recovered"] is True
        assert again.versions(left) == [2, 3]
        assert again.versions(rejoined) == [2, 3, 4]
        assert again.versions(old) == [7]
        assert again.versions(new) == [1, 2]
        await world.post(left)
        last = await world.post(rejoined)
        await again.until(_has(rejoined, last))
        assert again.versions(left) == [2, 3]


async def test_more_than_can_be_told_whole_is_not_recovered(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.resume.EVENTS_MAX", 5)
    async with open_world(limits=SOON) as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        await bob.close()
        missed = await world.post(conversation, 6)
        again = await _resumed(world, bob)
        assert again.hello["recovered"] is False
        last = await world.post(conversation)
        await again.until(_has(conversation, last))
        assert again.versions(conversation) == [missed + 1]


async def test_a_cursor_of_a_future_that_the_log_has_not_had_is_not_recovered(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        await world.create("bob")
        future = world.gateway.sealed(Cursor((1_000_000,), 0), "bob")
        bob = await world.connect("bob", cursor=future)
        assert bob.hello["recovered"] is False


async def test_a_lost_last_push_is_found_by_the_audit(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        world.bus.loses = _is_event
        last = await world.post(conversation, 2)
        await bob.until(_has(conversation, last))
        assert bob.versions(conversation) == [2, 3]


async def test_a_lost_invitation_is_found_by_the_audit(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        bob = await world.connect("bob")
        world.bus.loses = _is_event
        conversation = await world.create("bob")
        await bob.until(_has(conversation, 1))
        world.bus.loses = lambda _signal: False
        last = await world.post(conversation)
        await bob.until(_has(conversation, last))


async def test_a_lost_own_event_ends_the_session_which_is_then_told(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        conversation = await world.create("bob")
        await world.post(conversation, 3)
        bob = await world.connect("bob")
        world.bus.loses = lambda signal: signal.subject == subjects.live_user("bob")
        await world.context.dispatcher.dispatch(MoveRead(actor_id="bob", conversation_id=conversation, seq=2))
        assert await bob.closed() == 3010
        world.bus.loses = lambda _signal: False
        again = await _resumed(world, bob)
        await again.until(lambda client: len(client.own) > 0)
        assert [(own["type"], own["data"]) for own in again.own if own["type"] == "read.moved"] == [
            ("read.moved", {"seq": 2})
        ]


async def test_own_events_reach_every_session_and_are_not_told_again(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        conversation = await world.create("bob")
        await world.post(conversation, 3)
        phone, desk = await world.connect("bob", device_id="phone"), await world.connect("bob", device_id="desk")
        answer = await phone.request("read", conversation_id=str(conversation), seq=3)
        assert answer["ok"] == {"conversation_id": str(conversation), "read_seq": 3}
        for client in (phone, desk):
            await client.until(lambda client: any(own["type"] == "read.moved" for own in client.own))
        await desk.until(lambda client: len(client.cursors) > 0)
        await eventually(lambda: _tells(world, desk.cursors[-1]))
        again = await world.connect("bob", cursor=desk.cursors[-1], device_id="desk")
        last = await world.post(conversation)
        await again.until(_has(conversation, last))
        assert again.own == []


def _tells(world: World, token: str) -> bool:
    """Whether a cursor is past the first own events: two devices and a marker, with the user's own."""
    return world.gateway.unsealed(token, "bob").own >= 4


async def test_a_revoked_device_is_closed_at_once_and_comes_in_with_a_newer_token_only(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        phone, desk = await world.connect("bob", device_id="phone"), await world.connect("bob", device_id="desk")
        other = await world.connect("carol", device_id="phone")
        await world.context.dispatcher.dispatch(RevokeDevice(actor_id="bob", device_id="phone"))
        assert await phone.closed() == 3501
        refused = await world.open()
        await refused.raw(json.dumps({"id": 1, "connect": {"token": world.token("bob"), "device_id": "phone"}}))
        assert await refused.closed() == 3501
        await world.context.dispatcher.dispatch(
            RegisterDevice(actor_id="bob", device_id="phone", kind="mobile", token_issued_at_ms=1 << 42)
        )
        for client in (desk, other):
            assert "ok" in await client.request("ping")


async def test_a_conversation_crosses_the_limit_both_ways_under_traffic(open_world: OpenWorld) -> None:
    """The limit is 10: up to 8 members are only written to, from 9 on gateways listen, above 10 they only listen."""
    crowd = [f"u{number}" for number in range(20)]
    assert writes(10, 10)
    assert not writes(11, 10)
    assert not reads(8, 10)
    async with open_world(limits=SessionLimits(audit_s=60), fanout_limit=10) as world:
        conversation = await world.create("bob", "carol")
        bob, carol = await world.connect("bob"), await world.connect("carol")

        async def traffic() -> None:
            while True:
                await world.post(conversation)

        posting = asyncio.create_task(traffic())
        for _ in range(3):
            for user in crowd:
                await world.change(conversation, add=[user])
            await world.change(conversation, remove=crowd)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        last = await world.post(conversation)
        for client in (bob, carol):
            await client.until(_has(conversation, last))
            assert client.versions(conversation) == list(range(2, last + 1))


async def test_an_event_stream_resumes_after_the_event_it_names(open_world: OpenWorld) -> None:
    async with open_world(limits=SOON) as world:
        conversation = await world.create("bob")
        authorization = {"authorization": f"Bearer {world.token('bob')}"}
        async with httpx.AsyncClient(base_url=world.url, timeout=20) as client:
            ids: list[str] = []
            async with client.stream("GET", "/v1/stream", headers=authorization) as stream:
                await world.post(conversation, 3)
                async for line in stream.aiter_lines():
                    if line.startswith("id: "):
                        ids.append(line.removeprefix("id: "))
                    if len(ids) == 3:  # the connection, and two of the three
                        break
            await world.post(conversation)
            seen: list[str] = []
            async with client.stream(
                "GET", "/v1/stream", headers={**authorization, "last-event-id": ids[-1]}
            ) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: ") and '"message.posted"' in line:
                        seen.append(line)
                    if '"recovered"' in line:
                        assert '"recovered":true' in line
                    if len(seen) == 2:
                        break
            assert ['"seq":3' in seen[0], '"seq":4' in seen[1]] == [True, True]
