"""A WebSocket session of the public protocol: requests answered by id, pushes in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from runtime.client.errors import ApiError, ConnectionLost, SessionClosed
from runtime.client.http import new_client_msg_id

Json = dict[str, Any]

SUBPROTOCOL: Final = Subprotocol("riverrun.v1.json")
FRAME_MAX_BYTES: Final = 16 * 1024 * 1024  # pushes of a long absence are coalesced into large frames
TIMEOUT_S: Final = 30.0


def socket_url(url: str) -> str:
    """Where the sessions of a server are: `http://host:port` → `ws://host:port/v1/ws`."""
    parts = urlsplit(url.rstrip("/"))
    return urlunsplit(("wss" if parts.scheme == "https" else "ws", parts.netloc, parts.path + "/v1/ws", "", ""))


class WebSocketClient:
    """One session: `async with WebSocketClient(url, token) as client`. Several tasks may request at once.

    Pushes (`{"event": …}`, `{"signal": …}`) go to `on_push`, or without it wait in an unbounded queue for
    `pushes()`: a session whose pushes nobody reads is a leak of its owner's. Once it has ended everything
    raises `SessionClosed`, whose `reconnect` says whether to open another.

    Args:
        url: of the server, `http://127.0.0.1:8080`.
        token: of the user.
        cursor: an earlier session's, an inbox's or a sync's, to be pushed what was missed.
        versions: an earlier session's, with its cursor: nothing is pushed twice then.
        on_push: called on the event loop, in order; must neither block nor raise.

    Attributes:
        session_id, user_id, recovered: as the server answered the `connect`.
        cursor: the newest the session was told.
        versions: of the conversations that it was pushed something of since.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        device_id: str = "python",
        cursor: str | None = None,
        versions: Mapping[str, int] | None = None,
        on_push: Callable[[Json], None] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.session_id = self.user_id = ""
        self.cursor = cursor
        self.recovered = False
        self._url = socket_url(url)
        self._hello: Json = {"token": token, "device_id": device_id}
        self.versions: dict[str, int] = dict(versions or {})
        if cursor is not None:
            self._hello |= {"cursor": cursor, "versions": self.versions}
        self._on_push = on_push
        self._timeout_s = timeout_s
        self._connection: ClientConnection
        self._tasks: list[asyncio.Task[None]] = []
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._pushes: asyncio.Queue[Json | None] = asyncio.Queue()
        self._closed: SessionClosed | None = None

    async def connect(self) -> None:
        """Open the session, once. Close it afterwards.

        Raises:
            ConnectionLost, SessionClosed, ApiError: nobody there, or not let in.
        """
        try:
            self._connection = await connect(
                self._url,
                subprotocols=[SUBPROTOCOL],
                compression=None,
                max_size=FRAME_MAX_BYTES,
                open_timeout=self._timeout_s,
                ping_interval=None,  # the protocol has its own
                proxy=None,
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise ConnectionLost(f"cannot open a session at {self._url}: {error}") from error
        self._tasks.append(asyncio.create_task(self._read(), name="websocket-client-reading"))
        try:
            answer = await self.request("connect", self._hello)
        except BaseException:
            await self.close()
            raise
        self.session_id, self.user_id = answer["session_id"], answer["user_id"]
        self.cursor, self.recovered = answer["cursor"], answer["recovered"]
        if not self.recovered:
            self.versions = {}
        self._tasks.append(asyncio.create_task(self._ping(answer["ping_s"]), name="websocket-client-pinging"))

    async def __aenter__(self) -> "WebSocketClient":
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session; what still waits for an answer is told so."""
        for pinging in self._tasks[1:]:
            pinging.cancel()
        await self._connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def request(self, method: str, parameters: Json | None = None) -> Json:
        """One request of the protocol and its answer.

        Raises:
            ApiError: refused. SessionClosed: the session ended first. ConnectionLost: no answer in time.
        """
        if self._closed:
            raise self._closed
        self._last_id += 1
        id_ = self._last_id
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        try:
            async with asyncio.timeout(self._timeout_s):
                # A closed connection is heard of by the reader, which fails the answer with the reason.
                with contextlib.suppress(ConnectionClosed):
                    await self._connection.send(msgspec.json.encode({"id": id_, method: parameters or {}}), text=True)
                return await answer
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {self._timeout_s:g} s") from error
        finally:
            self._waiting.pop(id_, None)

    async def send(
        self,
        conversation_id: str,
        text: str,
        *,
        client_msg_id: str | None = None,
        reply_to: str | None = None,
        mentions: list[str] | None = None,
    ) -> Json:
        """Post a text; the ack. Repeat a lost one with the same `client_msg_id`: it is posted once."""
        parameters: Json = {
            "conversation_id": conversation_id,
            "client_msg_id": client_msg_id or new_client_msg_id(),
            "body": {"type": "text", "text": text},
        }
        if reply_to is not None:
            parameters["reply_to"] = reply_to
        if mentions:
            parameters["mentions"] = mentions
        return await self.request("send", parameters)

    async def pushes(self) -> AsyncIterator[Json]:
        """Every push, in order, until the session ends.

        Raises:
            SessionClosed: it ended, and not by `close`.
        """
        while (push := await self._pushes.get()) is not None:
            yield push
        self._pushes.put_nowait(None)  # for whoever iterates after the end
        if self._closed and self._closed.close_code != 1000:
            raise self._closed

    async def _ping(self, ping_s: float) -> None:
        """Say that the client is there, also when it only listens; the reader hears of an end first."""
        with contextlib.suppress(ApiError, ConnectionLost, SessionClosed):
            while True:
                await asyncio.sleep(ping_s)
                await self.request("ping")

    async def _read(self) -> None:
        try:
            async for frame in self._connection:
                for line in frame.splitlines() if isinstance(frame, bytes) else frame.split("\n"):
                    if line:
                        self._take(msgspec.json.decode(line))
        except ConnectionClosed:
            pass  # an end without a proper close; the codes below tell
        except msgspec.DecodeError:
            await self._connection.close(1002, "not JSON")
        finally:
            code = self._connection.close_code or 1006
            self._closed = SessionClosed(code, self._connection.close_reason or "")
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._closed)
            self._pushes.put_nowait(None)

    def _take(self, message: Json) -> None:
        if "id" in message:
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                return  # its request gave up waiting
            if "error" in message:
                answer.set_exception(ApiError.of(message["error"]))
            else:
                answer.set_result(message["ok"])
        elif "cursor" in message:
            self.cursor, self.versions = message["cursor"], {}
        elif message:  # `{}` only says that the server is there
            event = message.get("event", {})
            if "version" in event and "conversation_id" in event:
                self.versions[event["conversation_id"]] = event["version"]
            if self._on_push:
                self._on_push(message)
            else:
                self._pushes.put_nowait(message)
