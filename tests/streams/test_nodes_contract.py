"""What every `Nodes` promises, over memory and over a NATS KV bucket."""

import asyncio

import pytest

from streams.ports import NODE_TTL_S, Nodes
from tests.streams.conftest import Streams, until


@pytest.fixture
def nodes(streams: Streams) -> Nodes:
    return streams.nodes


async def test_a_watch_begins_with_the_living_and_follows_who_comes_changes_and_leaves(nodes: Nodes) -> None:
    await nodes.announce("a", b"1")
    seen: list[dict[str, bytes]] = []
    watch = await nodes.watch(seen.append)
    assert seen == [{"a": b"1"}]
    for act, expected in (
        (nodes.announce("b", b"1"), {"a": b"1", "b": b"1"}),
        (nodes.announce("b", b"2"), {"a": b"1", "b": b"2"}),
        (nodes.withdraw("a"), {"b": b"2"}),
        (nodes.withdraw("b"), {}),
    ):
        await act
        async with asyncio.timeout(1.0):  # the port: within a second
            await until(lambda expected=expected: seen[-1] == expected)  # type: ignore[misc]
    await watch.close()
    await nodes.announce("c", b"")
    assert seen[-1] == {}


async def test_nobody_is_alive_at_first(nodes: Nodes) -> None:
    seen: list[dict[str, bytes]] = []
    watch = await nodes.watch(seen.append)
    assert seen == [{}]
    await watch.close()


async def test_a_node_that_renews_stays_and_one_that_does_not_is_gone(nodes: Nodes) -> None:
    seen: list[dict[str, bytes]] = []
    watch = await nodes.watch(seen.append)
    loop = asyncio.get_running_loop()
    await nodes.announce("alive", b"")
    await nodes.announce("dead", b"")
    announced_s = loop.time()
    await until(lambda: seen[-1] == {"alive": b"", "dead": b""})
    while "dead" in seen[-1]:
        await nodes.announce("alive", b"")
        await asyncio.sleep(0.2)
        assert loop.time() < announced_s + NODE_TTL_S + 2
    assert loop.time() > announced_s + NODE_TTL_S - 0.5
    assert seen[-1] == {"alive": b""}
    assert all("alive" in nodes for nodes in seen[2:])
    await watch.close()
