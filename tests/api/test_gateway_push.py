"""What a session is pushed: every event of its conversations, in order, once, whatever the bus loses."""

import asyncio
import random
from collections.abc import Callable

import pytest

from api.sessions import SessionLimits
from streams import subjects
from streams.codec import event_version
from streams.ports import Signal
from tests.api.sockets import (
    Client,
    OpenWorld,
    eventually,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)

# Whatever way the events come: each test is run with all of them addressed to the conversation, and to its members.
pytestmark = pytest.mark.parametrize("open_world", [0, 100], indirect=True, ids=["read", "write"])


def _is_live(signal: Signal) -> bool:
    return signal.headers.get(subjects.NATS_SUBJECT, "").startswith("conv.")


def _assert_whole(client: Client, conversation: int, last: int, *, first: int) -> None:
    """Every version from `first` to `last`, once, in order."""
    assert client.versions(conversation) == list(range(first, last + 1))


def _has(conversation: int, last: int) -> Callable[[Client], bool]:
    return lambda client: client.versions(conversation)[-1:] == [last]


async def test_a_member_is_pushed_what_is_posted_after_it_connected(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        ack = await world.post(conversation, 3)
        await bob.until(_has(conversation, ack))
        _assert_whole(bob, conversation, ack, first=2)
        assert [event["type"] for event in bob.events] == ["message.posted"] * 3
        assert bob.events[0]["data"]["seq"] == 1


async def test_a_sender_is_pushed_its_own_message(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        answer = await bob.send(conversation, "hello", "mine")
        await bob.until(_has(conversation, answer["ok"]["version"]))
        assert bob.events[-1]["data"]["client_msg_id"] == "mine"


async def test_pushed_and_read_events_are_equal(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob = await world.connect("bob")
        conversation = await world.create("bob")
        await world.change(conversation, add=["carol"])
        await world.change(conversation, remove=["carol"])
        last = await world.post(conversation, 2)
        await bob.until(_has(conversation, last))
        read = await bob.request("events", conversation_id=str(conversation), min_version=last)
        assert bob.events == read["ok"]["events"]


async def test_a_user_hears_of_a_new_conversation_and_all_that_follows(open_world: OpenWorld) -> None:
    async with open_world() as world:
        bob, other = await world.connect("bob"), await world.connect("bob")
        conversation = await world.create("bob")
        last = await world.post(conversation, 5)
        for client in (bob, other):
            await client.until(_has(conversation, last))
            _assert_whole(client, conversation, last, first=1)


async def test_an_added_member_is_pushed_from_its_addition_on(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("alice")
        carol = await world.connect("carol")
        before = await world.post(conversation, 3)
        await world.change(conversation, add=["carol"])
        last = await world.post(conversation, 3)
        await carol.until(_has(conversation, last))
        _assert_whole(carol, conversation, last, first=before + 1)
        assert carol.events[0]["type"] == "member.added"


async def test_a_removed_member_is_told_and_then_hears_nothing(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob", "carol")
        bob, carol = await world.connect("bob"), await world.connect("carol")
        removed = await world.post(conversation, 2) + 1
        await world.change(conversation, remove=["carol"])
        last = await world.post(conversation, 20)
        await bob.until(_has(conversation, last))
        # A later event of another conversation shows that carol's pushes have all come.
        other = await world.create("carol")
        await carol.until(_has(other, 1))
        _assert_whole(carol, conversation, removed, first=2)
        assert carol.events[-2]["type"] == "member.removed"

        await world.change(conversation, add=["carol"])
        again = await world.post(conversation)
        await carol.until(_has(conversation, again))
        assert carol.versions(conversation)[-2:] == [again - 1, again]


async def test_a_removed_member_hears_nothing_when_its_removal_was_lost(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob", "carol")
        bob, carol = await world.connect("bob"), await world.connect("carol")
        removed = await world.post(conversation) + 1
        world.bus.loses = lambda signal: _is_live(signal) and event_version(signal.headers) == removed
        await world.change(conversation, remove=["carol"])
        last = await world.post(conversation, 5)
        await bob.until(_has(conversation, last))
        other = await world.create("carol")
        await carol.until(_has(other, 1))
        _assert_whole(carol, conversation, removed, first=2)


async def test_an_addition_that_was_lost_is_told_without_a_later_event(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob, carol = await world.connect("bob"), await world.connect("carol")
        added = await world.post(conversation) + 1
        world.bus.loses = lambda signal: _is_live(signal) and event_version(signal.headers) == added
        await world.change(conversation, add=["carol"])
        for client in (bob, carol):
            await client.until(_has(conversation, added))
        assert carol.versions(conversation) == [added]


async def test_lost_events_are_filled_in_order(open_world: OpenWorld) -> None:
    async with open_world() as world:
        conversation = await world.create("bob")
        bob = await world.connect("bob")
        chance = random.Random(7)
        world.bus.loses = lambda signal: _is_live(signal) and chance.random() < 0.4
        await world.post(conversation, 100)
        world.bus.loses = lambda _signal: False
        last = await world.post(conversation)
        await bob.until(_has(conversation, last))
        _assert_whole(bob, conversation, last, first=2)


async def test_what_was_stored_while_a_session_began_is_pushed_without_a_later_event(open_world: OpenWorld) -> None:
    """The event falls between the reading of the memberships and the subscription to the conversation."""
    async with open_world(fanout_limit=0) as world:
        conversation = await world.create("bob")
        subscribe = world.bus.subscribe
        posted = 0

        async def late(subject, callback):  # type: ignore[no-untyped-def]
            nonlocal posted
            if subject == subjects.live_conversation(str(conversation)):
                posted = await world.post(conversation)
            return await subscribe(subject, callback)

        world.bus.subscribe = late  # type: ignore[method-assign]
        bob = await world.connect("bob")
        await bob.until(_has(conversation, posted))
        _assert_whole(bob, conversation, posted, first=2)


async def test_a_hole_that_cannot_be_filled_ends_the_session(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.live.PATIENCE_S", 0.2)
    async with open_world() as world:
        conversation, other = await world.create("bob"), await world.create("carol")
        bob, carol = await world.connect("bob"), await world.connect("carol")
        lost = await world.post(conversation) + 1
        await bob.until(_has(conversation, lost - 1))
        world.bus.loses = lambda signal: _is_live(signal) and event_version(signal.headers) == lost
        read = world.queries.events_after
        missing = {"after": lost}

        async def hole(conversation_id: int, *, after: int, limit: int, min_version: int = 0):  # type: ignore[no-untyped-def]
            return await read(conversation_id, after=max(after, missing["after"]), limit=limit, min_version=min_version)

        world.queries.events_after = hole  # type: ignore[method-assign]
        await world.post(conversation, 2)
        assert await bob.closed() == 3010
        assert bob.versions(conversation)[-1] == lost - 1
        last = await world.post(other)
        await carol.until(_has(other, last))

        missing["after"] = 0
        again = await world.connect("bob")
        last = await world.post(conversation)
        await again.until(_has(conversation, last))
        _assert_whole(again, conversation, last, first=last)


@pytest.mark.parametrize("seed", range(6))
async def test_sessions_that_come_and_go_miss_nothing_of_what_they_are_there_for(
    open_world: OpenWorld, seed: int
) -> None:
    """Random interleavings of posting, connecting, leaving, adding, removing and losing."""
    chance = random.Random(seed)
    async with open_world(limits=SessionLimits(per_user=100)) as world:
        conversations = [await world.create("bob", "carol") for _ in range(3)]
        world.bus.loses = lambda signal: _is_live(signal) and chance.random() < 0.1
        clients: list[tuple[Client, dict[int, int]]] = []

        async def comes() -> None:
            _, found = await world.push.newest_versions(conversations, since=(0,))
            known = {conversation: found.get(conversation, 0) for conversation in conversations}
            clients.append((await world.connect(chance.choice(["bob", "carol"])), known))

        async def goes() -> None:
            if len(clients) > 4:
                client, _ = clients.pop(chance.randrange(len(clients)))
                await client.close()

        async def posts() -> None:
            await world.post(chance.choice(conversations), chance.randrange(1, 5))

        async def changes() -> None:
            conversation = chance.choice(conversations)
            await world.change(conversation, add=[f"guest-{chance.randrange(1000)}"])

        actions = [comes, goes, posts, posts, changes]
        for _ in range(12):
            await asyncio.gather(*(chance.choice(actions)() for _ in range(6)))
        world.bus.loses = lambda _signal: False
        last = {conversation: await world.post(conversation) for conversation in conversations}
        for client, known in clients:
            for conversation in conversations:
                await client.until(_has(conversation, last[conversation]))
                versions = client.versions(conversation)
                assert versions == list(range(versions[0], last[conversation] + 1))
                assert versions[0] >= known[conversation] or versions[0] == 1


@pytest.mark.parametrize("seed", range(4))
async def test_a_member_that_is_removed_and_added_again_hears_exactly_its_times(
    open_world: OpenWorld, seed: int
) -> None:
    chance = random.Random(seed)
    async with open_world() as world:
        conversation = await world.create("bob", "carol")
        carol, bob = await world.connect("carol"), await world.connect("bob")
        world.bus.loses = lambda signal: _is_live(signal) and chance.random() < 0.15
        for _ in range(6):
            await world.post(conversation, chance.randrange(4))
            await world.change(conversation, remove=["carol"])
            await world.post(conversation, chance.randrange(4))
            await world.change(conversation, add=["carol"])
            if chance.random() < 0.5:
                await carol.until(lambda client: bool(client.events) and client.events[-1]["type"] == "member.added")
        world.bus.loses = lambda _signal: False
        last = await world.post(conversation)
        await bob.until(_has(conversation, last))
        await carol.until(_has(conversation, last))
        _assert_whole(bob, conversation, last, first=2)
        heard = carol.versions(conversation)
        assert heard == sorted(set(heard))
        inside, allowed = True, set()
        for event in bob.events:
            concerns = event["type"] in {"member.added", "member.removed"}
            if concerns:
                inside = event["type"] == "member.added"
            if inside or concerns:
                allowed.add(event["version"])
        assert set(heard) <= allowed
        assert heard[-1] == last


async def test_a_conversation_nobody_is_in_is_forgotten_after_a_while(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.feeds.LINGER_S", 0.05)
    async with open_world(fanout_limit=0, limits=SessionLimits(ping_s=0.2)) as world:
        conversation = await world.create("bob")
        subject = subjects.live_conversation(str(conversation))
        bob = await world.connect("bob")
        assert subject in {subscription.subject for subscription in world.bus._subscriptions}
        await bob.close()
        await eventually(
            lambda: not any("live.conv" in subscription.subject for subscription in world.bus._subscriptions)
        )
        last = await world.post(conversation)
        again = await world.connect("bob")
        last = await world.post(conversation)
        await again.until(_has(conversation, last))
        _assert_whole(again, conversation, last, first=last)
