"""WebSocket sessions of the users of a running Riverrun."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import jwt
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from runtime.client.websocket import socket_url
from tests.api.conftest import User
from tests.api.sockets import Client, Json
from tests.running import Running


class Sessions:
    """Opens sessions, and closes them at the end of the test."""

    def __init__(self, running: Running, stack: AsyncExitStack) -> None:
        self._running = running
        self._stack = stack

    async def open(self, user: User, **parameters: Any) -> Client:
        """A connected session; `hello` is the answer."""
        client, answer = await self.ask(user, **parameters)
        client.hello = answer["ok"]
        return client

    async def refused(self, user: User, **parameters: Any) -> tuple[Json, int]:
        """The error of a session that is not let in, and the code it is closed with."""
        client, answer = await self.ask(user, **parameters)
        return answer["error"], await client.closed()

    async def ask(self, user: User, **parameters: Any) -> tuple[Client, Json]:
        """A connection, and the answer to its `connect`."""
        url = socket_url(self._running.url)
        connection = await connect(
            url, subprotocols=[Subprotocol("riverrun.v1.json")], max_size=None, ping_interval=None, proxy=None
        )
        client = Client(connection)
        self._stack.push_async_callback(client.close)
        return client, await client.request("connect", **{"token": user.token, **parameters})

    def fresh_token(self, user: User) -> User:
        """The user with a token of this moment."""
        now_s = time.time()
        secret = (self._running.data_dir / "jwt.secret").read_text().strip()
        token = jwt.encode({"sub": user.user_id, "iat": now_s, "exp": now_s + 600}, secret, algorithm="HS256")
        return User(user.client, user.user_id, token)


@pytest_asyncio.fixture(name="sessions", loop_scope="session")
async def sessions_fixture(running: Running) -> AsyncIterator[Sessions]:
    async with AsyncExitStack() as stack:
        yield Sessions(running, stack)
