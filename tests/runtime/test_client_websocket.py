"""The WebSocket clients, the plain and the light one, against a real WebSocket server that the test scripts."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from api.sessions import CloseCode
from runtime.bench.socket import close_sockets, open_socket, open_sockets
from runtime.client import SUBPROTOCOL, ApiError, ConnectionLost, SessionClosed, WebSocketClient
from runtime.client.errors import RECONNECT_CODES

Behaviour = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[str]:
    """A server that answers `connect` and then behaves; its URL."""

    async def session(connection: ServerConnection) -> None:
        hello = json.loads(await connection.recv())
        assert hello["connect"]["token"] == "token"
        answer = {"session_id": "s", "user_id": "u", "cursor": "c", "recovered": True, "ping_s": 25}
        await connection.send(json.dumps({"id": hello["id"], "ok": answer}))
        await behaviour(connection)

    async with serve(session, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def quiet(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def test_a_session_says_who_it_is() -> None:
    async with serving(quiet) as url, WebSocketClient(url, "token") as client:
        assert (client.session_id, client.user_id, client.cursor, client.recovered) == ("s", "u", "c", True)


async def test_requests_are_answered_by_id_in_whatever_order() -> None:
    async def reversed_answers(connection: ServerConnection) -> None:
        asked = [json.loads(await connection.recv()) for _ in range(2)]
        await connection.send(
            "\n".join(json.dumps({"id": one["id"], "ok": {"text": one["send"]["body"]["text"]}}) for one in asked[::-1])
        )
        await connection.wait_closed()

    async with serving(reversed_answers) as url, WebSocketClient(url, "token") as client:
        answers = await asyncio.gather(client.send("7", "one"), client.send("7", "two"))
    assert [answer["text"] for answer in answers] == ["one", "two"]


async def test_a_refusal_is_an_api_error_and_the_session_goes_on() -> None:
    async def refusing(connection: ServerConnection) -> None:
        for answer in ({"error": {"code": "not_found", "message": "none", "retryable": False}}, {"ok": {"x": 1}}):
            asked = json.loads(await connection.recv())
            await connection.send(json.dumps({"id": asked["id"], **answer}))
        await connection.wait_closed()

    async with serving(refusing) as url, WebSocketClient(url, "token") as client:
        with pytest.raises(ApiError, match="not_found: none"):
            await client.request("history", {})
        assert await client.request("history", {}) == {"x": 1}


async def test_pushes_come_in_order_and_an_empty_object_is_none() -> None:
    async def pushing(connection: ServerConnection) -> None:
        await connection.send('{"event":{"version":1}}\n{"event":{"version":2}}')
        await connection.send("{}")
        await connection.send('{"signal":{"type":"typing"}}')
        await connection.close()

    seen: list[dict[str, Any]] = []
    async with serving(pushing) as url, WebSocketClient(url, "token") as client:
        seen = [push async for push in client.pushes()]
    assert seen == [{"event": {"version": 1}}, {"event": {"version": 2}}, {"signal": {"type": "typing"}}]


@pytest.mark.parametrize(
    ("close_code", "reconnect"),
    [
        (3001, True),
        (3008, True),
        (3009, True),
        (3010, True),
        (3011, True),
        (1011, True),
        (1012, True),
        (3500, False),
        (3501, False),
        (3502, False),
        (3503, False),
        (3504, False),
    ],
)
async def test_the_end_of_a_session_says_whether_to_reconnect(close_code: int, reconnect: bool) -> None:
    async def ending(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(close_code, "why")

    async with serving(ending) as url, WebSocketClient(url, "token") as client:
        with pytest.raises(SessionClosed, match=f"{close_code}: why") as raised:
            await client.send("7", "unanswered")
        assert raised.value.reconnect is raised.value.retryable is reconnect
        with pytest.raises(SessionClosed):
            await client.send("7", "after the end")
        with pytest.raises(SessionClosed):
            _ = [push async for push in client.pushes()]


def test_the_client_comes_back_after_every_close_code_that_says_so() -> None:
    assert {code for code in RECONNECT_CODES if code >= 3000} == {code for code in CloseCode if code < 3500}


async def test_a_token_that_is_refused_closes_the_opening_session() -> None:
    async def session(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(3500, "bad token")

    async with serve(session, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with pytest.raises(SessionClosed, match="3500"):
            await WebSocketClient(url, "bad").connect()
        with pytest.raises(SessionClosed, match="3500"):
            await open_socket(url, "bad")


async def test_the_light_socket_frames_as_the_standard_does() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for frame in connection:
            await connection.send(frame)

    sizes = [1, 125, 126, 65535]
    async with serving(echo) as url:
        socket = await open_socket(url, "token")
        received: asyncio.Queue[bytes] = asyncio.Queue()
        socket.listen(received.put_nowait)
        for size in sizes:
            socket.send(b"x" * size)
        for size in sizes:
            assert await received.get() == b"x" * size
        await close_sockets([socket])
    assert socket.closed.result().close_code == 1000


async def test_the_light_socket_takes_long_frames_and_early_pushes() -> None:
    async def pushing(connection: ServerConnection) -> None:
        await connection.send('{"event":1}')
        await connection.send("y" * 200_000)
        await connection.send("{}")
        await connection.close(3008)

    async with serving(pushing) as url:
        socket = await open_socket(url, "token")
        received: list[bytes] = []
        socket.listen(received.append)
        ended = await socket.closed
    assert received == [b'{"event":1}', b"y" * 200_000, b"{}"]
    assert ended.close_code == 3008


async def test_opening_many_sockets_is_all_or_none() -> None:
    opened = 0

    async def counting(connection: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        await connection.wait_closed()

    async with serving(counting) as url:
        sockets = await open_sockets(url, ["token"] * 100)
        assert len(sockets) == 100
        await close_sockets(sockets)
    assert opened == 100
    with pytest.raises(ConnectionLost):
        await open_sockets(url, ["token"] * 3)
