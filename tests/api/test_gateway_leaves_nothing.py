"""What sessions leave behind: nothing, however they end, and nothing for the cyclic collector either."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.server import ServerProtocol

from api.listening import Listening
from api.live import LiveConversation
from api.position import Position
from api.sessions import Session, SessionLimits
from api.socket import Socket
from api.trail import Trail
from api.websocket import Connection, SocketOutlet
from streams.memory.bus import MemorySubscription
from tests.api.sockets import (
    OpenWorld,
    World,
    eventually,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)

OF_SESSIONS = (Connection, HttpToolsProtocol, LiveConversation, Position, ServerProtocol, Session, Socket, SocketOutlet)
KEPT = (*OF_SESSIONS, Listening, MemorySubscription)
CYCLES = 5
USERS = 8


@pytest.fixture(autouse=True)
def _without_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is gone is gone by itself. Conversations that nobody is in are forgotten soon. What the trail is to remember
    of sessions that ended, a bounded number of positions, is not what this is about."""
    monkeypatch.setattr("api.gateway.Trail", partial(Trail, ended_max=0))
    monkeypatch.setattr("api.feeds.LINGER_S", 1.0)
    monkeypatch.setattr("api.gateway.TICK_S", 0.02)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _living() -> Counter[str]:
    """Objects of the server's that live, by kind; and all tasks."""
    kept = [kind.__name__ for found in gc.get_objects() for kind in KEPT if isinstance(found, kind)]
    living = Counter(kept)
    living["Task"] = len(asyncio.all_tasks())
    return living


async def _come_and_go(world: World, conversation: int, cycle: int) -> None:
    """Some say goodbye, some are cut off, one resumes, one is refused, one is closed by the server."""
    clients = [await world.connect(f"user-{number}") for number in range(USERS)]
    await world.post(conversation)
    await clients[0].request("typing", conversation_id=str(conversation), active=True)
    await clients[1].request("presence", subscribe=["user-2"])
    for client in clients:
        await client.until(lambda client: len(client.versions(conversation)) == 1)
    for client in clients[: USERS // 2]:
        await client.close()
    for client in clients[USERS // 2 :]:
        client.connection.transport.abort()
        await client.close()
    again = await world.connect("user-0", cursor=clients[0].hello["cursor"])
    await again.raw("no request")
    await again.closed()
    await again.close()
    nobody = await world.open()
    await nobody.request("connect", token=f"nonsense {cycle}")
    await nobody.close()


@pytest.mark.parametrize("open_world", [0, 100], indirect=True)
async def test_sessions_leave_nothing_behind(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(audit_s=0.2)) as world:
        conversation = await world.create(*(f"user-{number}" for number in range(USERS)))
        await _come_and_go(world, conversation, 0)  # what is made once is made
        await eventually(lambda: not any(_living()[kind.__name__] for kind in OF_SESSIONS))
        before = _living()
        for cycle in range(1, CYCLES + 1):
            await _come_and_go(world, conversation, cycle)
        await eventually(lambda: _living() <= before)  # fewer, where the first were not all over
