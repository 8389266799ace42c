"""Nodes that come, leave, die and hang, over memory and over NATS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streams import subjects
from streams.membership import Announcement, Membership
from streams.ports import NODE_TTL_S
from tests.streams.conftest import Streams, until

pytestmark = pytest.mark.usefixtures("nats")


@contextlib.asynccontextmanager
async def joined(streams: Streams, node_id: str, *roles: str) -> AsyncIterator[Membership]:
    """A member, which at the end is gone without a word, as if killed."""
    membership = Membership(node_id, streams.nodes, streams.bus, lambda: Announcement(roles, 0))
    task = asyncio.create_task(membership.run())
    try:
        await until(lambda: node_id in nodes_of(membership, *roles))
        yield membership
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def nodes_of(membership: Membership, *roles: str) -> frozenset[str]:
    return frozenset[str]().union(*(membership.ring(role).nodes for role in roles))


async def test_each_role_has_the_ring_of_those_who_have_it(streams: Streams) -> None:
    async with joined(streams, "a", "writer") as a, joined(streams, "b", "writer", "api") as b:
        for membership in (a, b):
            await until(lambda m=membership: nodes_of(m, "writer") == {"a", "b"})  # type: ignore[misc]
            assert nodes_of(membership, "api") == {"b"}
            assert nodes_of(membership, "fanout") == frozenset()


async def test_who_leaves_is_gone_at_once(streams: Streams) -> None:
    async with joined(streams, "a", "writer") as a, joined(streams, "b", "writer") as b:
        await until(lambda: nodes_of(a, "writer") == {"a", "b"})
        await b.leave()
        await until(lambda: nodes_of(a, "writer") == {"a"}, timeout_s=NODE_TTL_S / 2)


async def test_one_for_whom_nobody_answers_is_struck_out(streams: Streams) -> None:
    async def announce() -> None:
        while True:  # so that its time to live does not end
            await streams.nodes.announce("b", b'{"roles":["writer"],"started_at_ms":0}')
            await asyncio.sleep(NODE_TTL_S / 10)

    changes: list[frozenset[str]] = []
    async with joined(streams, "a", "writer") as a:
        a.on_change(lambda: changes.append(nodes_of(a, "writer")))
        announcing = asyncio.create_task(announce())
        await until(lambda: {"a", "b"} in changes)
        await until(lambda: {"a"} in changes)
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)


async def test_one_that_answers_but_is_not_announced_any_more_is_gone_with_its_time_to_live(streams: Streams) -> None:
    async def here(_request: bytes) -> bytes:
        return b""

    async with joined(streams, "a", "writer") as a:
        door = await streams.bus.respond(subjects.node("b"), here)
        await streams.nodes.announce("b", b'{"roles":["writer"],"started_at_ms":0}')
        await until(lambda: nodes_of(a, "writer") == {"a", "b"})
        await until(lambda: nodes_of(a, "writer") == {"a"}, timeout_s=NODE_TTL_S + 2)
        await door.close()


async def test_a_registry_that_lost_everything_moves_nothing(streams: Streams) -> None:
    changes: list[frozenset[str]] = []
    async with joined(streams, "a", "writer") as a, joined(streams, "b", "writer"):
        await until(lambda: nodes_of(a, "writer") == {"a", "b"})
        a.on_change(lambda: changes.append(nodes_of(a, "writer")))
        seen: list[dict[str, bytes]] = []
        watch = await streams.nodes.watch(seen.append)
        await asyncio.gather(streams.nodes.withdraw("a"), streams.nodes.withdraw("b"))
        await until(lambda: {} in seen or len(seen) > 1)
        await until(lambda: set(seen[-1]) == {"a", "b"})
        await watch.close()
    assert not changes


async def test_an_announcement_that_cannot_be_read_is_passed_over(streams: Streams) -> None:
    async with joined(streams, "a", "writer") as a:
        await streams.nodes.announce("newer", b"\x00")
        await streams.nodes.announce("z", b'{"roles":["writer"],"started_at_ms":0,"new":1}')
        await until(lambda: nodes_of(a, "writer") == {"a", "z"})
