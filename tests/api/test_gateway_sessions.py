"""How sessions end and what keeps them: slow clients, silence, expiry, draining, loss; and server-sent events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from api.frames import live_frame, stored_frame
from api.sessions import SessionLimits
from projections.pages import StoredEvent
from streams import subjects
from streams.ports import Signal
from tests.api.sockets import (
    OpenWorld,
    World,
    eventually,
    open_world_fixture,  # noqa: F401  # the fixture `open_world`
)

LARGE = "x" * 8_000


# -- slow clients -------------------------------------------------------------------------------------------


async def test_a_slow_session_is_closed_while_others_are_pushed_to(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(buffer_bytes=256 * 1024)) as world:
        conversation = await world.create("bob", "carol")
        slow, quick = await world.connect("bob"), await world.connect("carol")
        slow.connection.transport.pause_reading()
        last = 0
        while world.gateway.session_count == 2:
            await asyncio.gather(*(quick.send(conversation, LARGE) for _ in range(20)))
            last = quick.versions(conversation)[-1]
            assert last < 5_000
        answer = await quick.send(conversation, "still here")
        await quick.until(lambda client: client.versions(conversation)[-1] == answer["ok"]["version"])
        assert quick.versions(conversation) == list(range(2, answer["ok"]["version"] + 1))

        slow.connection.transport.resume_reading()
        assert await slow.closed() == 3008
        heard = slow.versions(conversation)
        assert heard == list(range(2, 2 + len(heard)))


async def test_a_slow_stream_ends_with_the_code(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(buffer_bytes=256 * 1024)) as world:
        conversation = await world.create("bob", "carol")
        quick = await world.connect("carol")
        reader, writer = await asyncio.open_connection(*_address(world), limit=1024)
        try:
            writer.write(
                f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.token('bob')}\r\n\r\n".encode()
            )
            async with asyncio.timeout(10):
                await reader.readuntil(b"event: connected")
            while world.gateway.session_count == 2:
                await asyncio.gather(*(quick.send(conversation, LARGE) for _ in range(20)))
            rest = await _read_all(reader)
            assert b"event: close\ndata: " in rest
            assert b'"code":3008' in rest
        finally:
            writer.close()
            await writer.wait_closed()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    async with asyncio.timeout(10):
        while not b"".join(parts[-2:]).endswith(b"0\r\n\r\n"):
            parts.append(await reader.read(65_536))
    return b"".join(parts)


def _address(world: World) -> tuple[str, int]:
    url = httpx.URL(world.url)
    return url.host, url.port or 0


# -- the clock ----------------------------------------------------------------------------------------------


async def test_the_server_says_that_it_is_there(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(ping_s=0.2)) as world:
        bob = await world.connect("bob")
        assert bob.hello["ping_s"] == 0.2

        async def speaks() -> None:
            for _ in range(20):
                await bob.request("history", conversation_id="1")
                await asyncio.sleep(0.05)

        speaking = asyncio.create_task(speaks())
        await speaking
        assert bob.alive == 0
        await bob.until(lambda client: client.alive == 2)


async def test_a_client_that_is_silent_too_long_is_closed(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(ping_s=0.1)) as world:
        bob = await world.connect("bob")
        assert await bob.closed() == 3009
        assert bob.alive >= 1


async def test_a_session_ends_with_its_token(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(ping_s=1)) as world:
        bob = await world.open()
        answer = await bob.request("connect", token=world.token("bob", ttl_s=3))  # whole seconds: it lasts two at least
        assert "ok" in answer
        assert await bob.closed() == 3500


# -- ends of many -------------------------------------------------------------------------------------------


async def test_draining_tells_every_session_and_lets_none_in(open_world: OpenWorld) -> None:
    async with open_world() as world:
        clients = [await world.connect(user) for user in ("bob", "bob", "carol")]
        late = await world.open()
        await world.server.drain(0.2)
        assert [await client.closed() for client in clients] == [3001] * 3
        answer = await late.request("connect", token=world.token("bob"))
        assert answer["error"] == {
            "code": "unavailable",
            "message": "this server is stopping; connect again",
            "retryable": True,
        }
        assert await late.closed() == 3001
        with pytest.raises(OSError):  # noqa: PT011  # refused or reset, by the system's choice
            await world.open()


async def test_what_the_bus_may_have_lost_ends_every_session(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gateway.LOSS_SPREAD_S", 0.1)
    async with open_world() as world:
        conversation = await world.create("bob", "carol")
        clients = [await world.connect("bob"), await world.connect("carol")]
        world.bus.loses = lambda _signal: True
        await world.post(conversation, 3)
        world.bus.lose("the connection broke")
        assert [await client.closed() for client in clients] == [3010] * 2
        world.bus.loses = lambda _signal: False
        again = await world.connect("bob")
        last = await world.post(conversation)
        await again.until(lambda client: client.versions(conversation) == [last])


async def test_sessions_leave_nothing_behind(open_world: OpenWorld) -> None:
    async with open_world() as world:
        await world.create("bob")
        clients = [await world.connect("bob") for _ in range(3)]
        assert REGISTRY.get_sample_value("riverrun_sessions", {"door": "websocket"}) == 3
        for client in clients:
            client.connection.transport.abort()
        await eventually(lambda: world.gateway.session_count == 0)
        assert REGISTRY.get_sample_value("riverrun_sessions", {"door": "websocket"}) == 0
        await eventually(lambda: not any("live.user" in found.subject for found in world.bus._subscriptions))


# -- frames -------------------------------------------------------------------------------------------------


async def test_live_and_stored_frames_are_the_same_bytes(open_world: OpenWorld) -> None:
    async with open_world() as world:
        heard: dict[int, Signal] = {}
        conversation = await world.create("bob")
        subscription = await world.bus.subscribe(
            subjects.live_conversation(str(conversation)),
            lambda signal: heard.update({int(signal.headers[subjects.VERSION]): signal}),
        )
        await world.change(conversation, add=["carol"])
        await world.change(conversation, remove=["carol"])
        last = await world.post(conversation)
        page = await world.queries.events_after(conversation, after=1, limit=10, min_version=last)
        stored: list[StoredEvent] = page.events
        assert [event.version for event in stored] == [2, 3, 4]
        for event in stored:
            live, read = live_frame(heard[event.version]), stored_frame(event)
            assert live.websocket == read.websocket
            assert live.sse == read.sse
            assert live.removed_user_id == read.removed_user_id
        assert live_frame(heard[3]).removed_user_id == "carol"
        await subscription.close()


# -- server-sent events -------------------------------------------------------------------------------------


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    async for line in lines:
        if line.startswith(":"):
            yield {"comment": line}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            yield event
            event = {}


@contextlib.asynccontextmanager
async def _stream(world: World, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    async with (
        httpx.AsyncClient(timeout=15) as client,
        client.stream("GET", f"{world.url}/v1/stream{query}", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = _events(response.aiter_lines())
        yield events
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_stream_carries_the_pushes(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(ping_s=0.5)) as world:
        conversation = await world.create("bob")
        socket = await world.connect("bob")
        authorization = f"Bearer {world.token('bob')}"
        async with _stream(world, authorization=authorization, **{"last-event-id": "x"}) as events:
            connected = await anext(events)
            assert connected["event"] == "connected"
            assert connected["data"]["recovered"] is False
            assert connected["data"]["user_id"] == "bob"
            last = await world.post(conversation, 2)
            pushed = [await anext(events), await anext(events)]
            assert [event["event"] for event in pushed] == ["event", "event"]
            assert len({connected["id"], *(event["id"] for event in pushed)}) == 3  # each leads on
            await socket.until(lambda client: client.versions(conversation)[-1:] == [last])
            assert [event["data"]["event"] for event in pushed] == socket.events
            assert await anext(events) == {"comment": ": alive"}
            await world.server.drain(0)
            closing = await anext(events)
            assert closing["event"] == "close"
            assert closing["data"]["code"] == 3001
            assert [event async for event in events] == []


async def test_a_ticket_opens_one_stream(open_world: OpenWorld) -> None:
    async with open_world() as world:
        principal = world.context.authenticator.verify(world.token("bob"))
        ticket = await world.context.tickets.issue(principal)
        async with _stream(world, f"?ticket={ticket}") as events:
            assert (await anext(events))["data"]["user_id"] == "bob"
        await eventually(lambda: world.gateway.session_count == 0)
        async with httpx.AsyncClient() as client:
            again = await client.get(f"{world.url}/v1/stream?ticket={ticket}")
            assert (again.status_code, again.json()["code"]) == (401, "unauthenticated")


async def test_a_stream_that_is_not_let_in_is_a_problem(open_world: OpenWorld) -> None:
    async with open_world(limits=SessionLimits(per_user=1)) as world:
        bob = await world.connect("bob")
        authorization = {"authorization": f"Bearer {world.token('bob')}"}
        async with httpx.AsyncClient(base_url=world.url) as client:
            answers = [
                await client.get("/v1/stream"),
                await client.get(f"/v1/stream?token={world.token('bob')}"),
                await client.get("/v1/stream", headers={"authorization": f"Bearer {world.token('bob', ttl_s=-5)}"}),
                await client.get("/v1/stream", headers=authorization),
            ]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
        assert (await bob.request("ping"))["ok"] == {}
