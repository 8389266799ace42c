"""The clients that are observed: one for each way of staying current, all of the same user.

Each keeps what it was given in a `ClientState`, and can be cut off at any moment, without a farewell, and come back.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runtime.client.websocket import socket_url
from tests.api.conftest import User
from tests.oracle.asking import all_events, read_blocks, read_devices, read_inbox, read_profile, sync
from tests.oracle.state import ClientState, Json

WAIT_S = 20.0
MANY = 1_000  # pages, more than there are


class ObservedClient:
    """What all of them are.

    Attributes:
        device_id: of the sessions it opens; `None` for a client that does not say.
        strict: whether nothing may come twice.
        notified: whether own events are pushed to it.
    """

    device_id: str | None = None
    strict: ClassVar[bool] = True
    notified: ClassVar[bool] = True

    def __init__(self, user: User) -> None:
        self.user = user
        self.state = ClientState(user.user_id)
        self.connected = False
        self.was_away = False
        self.excused: set[str] = set()  # conversations left, of which not everything was told
        self.stirred = asyncio.Event()

    async def resume(self) -> None:
        """Become current from now on. Nothing if it is."""
        if not self.connected:
            await self._connect()
            self.connected = True

    async def cut(self) -> None:
        """Lose the connection."""
        if self.connected:
            self.connected, self.was_away = False, True
            await self._disconnect()

    async def pull(self, *, pages: int, limit: int, events: int) -> None:
        """Only for who does."""

    async def finish(self) -> None:
        """Be connected, and done with what was begun."""
        await self.resume()

    async def _connect(self) -> None:
        raise NotImplementedError

    async def _disconnect(self) -> None:
        raise NotImplementedError

    def inbox(self) -> dict[str, Json]:
        """Its entries."""
        return self.state.inbox()

    def lists(self) -> tuple[Json, dict[str, Json], dict[str, str]]:
        """Profile, devices and blocks."""
        return self.state.profile, self.state.devices, self.state.blocks

    def holds(self, inbox: dict[str, Json], lists: tuple[Json, dict[str, Json], dict[str, str]]) -> bool:
        """Whether it has these entries, and, if they are pushed to it, these lists."""
        return not self.notified or (self.inbox() == inbox and self.lists() == lists)

    async def fill(self) -> None:
        """Ask for what was said in one's conversations while one was not in them."""
        for conversation_id, versions in self.state.missing().items():
            wanted = set(versions)
            async for event in all_events(self.user, conversation_id):
                if event["version"] in wanted:
                    self.state.fill(event)

    async def _begin(self) -> None:
        """Read what is no conversation's; what comes from now on is told."""
        self.state.profile = await read_profile(self.user)
        self.state.devices, self.state.blocks = await read_devices(self.user), await read_blocks(self.user)

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for what is pushed to satisfy a condition; whether it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    self.stirred.clear()
                    await self.stirred.wait()
        return condition()


class SocketClient(ObservedClient):
    """A WebSocket client that resumes with its newest cursor and says what it has had since."""

    device_id: str | None = "observed-socket"

    def __init__(self, user: User, url: str) -> None:
        super().__init__(user)
        self.told = 0  # cursors
        self._url = socket_url(url)
        self._cursor: str | None = None
        self._since: dict[str, int] = {}  # what came after the cursor
        self._connection: ClientConnection
        self._reading: asyncio.Task[None]

    async def _connect(self) -> None:
        self._connection = await connect(
            self._url,
            subprotocols=[Subprotocol("riverrun.v1.json")],
            compression=None,
            max_size=None,
            ping_interval=None,
            proxy=None,
        )
        try:
            await self._greet()
        except BaseException:
            self._connection.transport.abort()
            await self._connection.wait_closed()
            raise
        self._reading = asyncio.create_task(self._read())

    async def _greet(self) -> None:
        hello: Json = {"token": self.user.token, "device_kind": "desktop", **self._place()}
        if self.device_id is not None:
            hello["device_id"] = self.device_id
        await self._connection.send(json.dumps({"id": 1, "connect": hello}))
        first, *rest = str(await self._connection.recv()).split("\n")
        answer = json.loads(first)
        assert "ok" in answer, answer
        await self._on_connected(answer["ok"])
        for line in rest:
            self._on_push(json.loads(line))

    def _place(self) -> Json:
        return {} if self._cursor is None else {"cursor": self._cursor, "versions": self._since}

    async def _on_connected(self, answer: Json) -> None:
        assert answer["recovered"] is (self._cursor is not None), "a cursor of a moment ago was not recovered"
        if self._cursor is None:
            await self._begin()
        self._cursor, self._since = answer["cursor"], {}

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._connection:
                for line in str(frame).split("\n"):
                    self._on_push(json.loads(line))
                self.stirred.set()
        self.stirred.set()

    def _on_push(self, push: Json) -> None:
        if "cursor" in push:
            self._cursor, self._since = push["cursor"], {}
            self.told += 1
        elif "event" in push:
            event = push["event"]
            self.state.take(event)
            if "version" in event:
                self._since[event["conversation_id"]] = event["version"]

    async def _disconnect(self) -> None:
        self._connection.transport.abort()  # what is on its way is lost
        await self._reading
        await self._connection.wait_closed()


class ForgetfulSocketClient(SocketClient):
    """A WebSocket client that resumes with its newest cursor alone: what came after it comes again."""

    device_id = None
    strict = False

    def _place(self) -> Json:
        return {} if self._cursor is None else {"cursor": self._cursor}


class SyncingSocketClient(SocketClient):
    """A WebSocket client that is never recovered: it connects anew, pulls what it missed, and then looks at pushes."""

    device_id = "observed-syncing"
    strict = False

    def __init__(self, user: User, url: str) -> None:
        super().__init__(user, url)
        self._synced: str | None = None

    def _place(self) -> Json:
        return {}

    async def _on_connected(self, answer: Json) -> None:
        assert answer["recovered"] is False
        done, cursor = False, self._synced or self._cursor
        while cursor is not None and not done:
            page = await sync(self.user, cursor=cursor, limit=2, events=3)
            cursor, done = page["cursor"], page["done"]
            await take_page(self, page)
            for entry in page["conversations"]:
                self.state.take_own_part(entry)
        self._synced = cursor
        if cursor is None:  # it had nothing to go on from
            self._cursor = answer["cursor"]
        await self._begin()

    def _on_push(self, push: Json) -> None:
        super()._on_push(push)
        if "cursor" in push:
            self._synced = push["cursor"]
        elif (event := push.get("event", {})).get("type") == "member.removed" and self._is_me(event["data"]["user_id"]):
            self.state.floors.pop(event["conversation_id"], None)

    def _is_me(self, user_id: str) -> bool:
        return user_id == self.user.user_id

    async def fill(self) -> None:
        """An entry it lost and came to again is pulled."""
        await super().fill()
        for id_, entry in (await read_inbox(self.user)).items():
            if id_ in self.state.events and id_ not in self.state.floors:
                self.state.take_own_part(entry)


class StreamClient(ObservedClient):
    """A client of server-sent events, as a browser's EventSource is."""

    device_id = "observed-stream"

    def __init__(self, user: User, url: str) -> None:
        super().__init__(user)
        self._http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(WAIT_S, read=None))
        self._last_id: str | None = None
        self._opened: asyncio.Future[None]
        self._reading: asyncio.Task[None]

    async def _connect(self) -> None:
        self._opened = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(WAIT_S):
            anew = self._last_id is None
            await self._opened
            if anew:
                await self._begin()

    async def _read(self) -> None:
        headers = {"authorization": f"Bearer {self.user.token}"}
        if self._last_id is not None:
            headers["last-event-id"] = self._last_id
        query = {"device_id": self.device_id or "", "device_kind": "web"}
        try:
            async with self._http.stream("GET", "/v1/stream", params=query, headers=headers) as response:
                assert response.status_code == 200, await response.aread()
                async for fields in _server_sent(response.aiter_bytes()):
                    self._on_event(fields)
                    self.stirred.set()
        except Exception as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def _on_event(self, fields: dict[str, str]) -> None:
        data = json.loads(fields["data"])
        match fields["event"]:
            case "connected":
                assert data["recovered"] is (self._last_id is not None), "the last event's id was not recovered"
                self._opened.set_result(None)
            case "event":
                self.state.take(data["event"])
                assert "id" in fields
            case "signal":
                assert "id" not in fields
        self._last_id = fields.get("id", self._last_id)

    async def _disconnect(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def close(self) -> None:
        """Be gone for good."""
        await self.cut()
        await self._http.aclose()


async def _server_sent(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, str]]:
    pending = b""
    async for chunk in chunks:
        pending += chunk
        while b"\n\n" in pending:
            block, pending = pending.split(b"\n\n", 1)
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            if fields:
                yield fields


class PullingClient(ObservedClient):
    """A client that only pulls: `sync`, page by page, from the beginning on."""

    notified = False

    def __init__(self, user: User) -> None:
        super().__init__(user)
        self.entries: dict[str, Json] = {}
        self._cursor: str | None = None
        self._done = True
        self._in_one = True  # whether the last sync was of one page
        self.was_away = True  # between any two pulls

    async def resume(self) -> None:
        """It is never connected."""

    async def pull(self, *, pages: int, limit: int, events: int) -> None:
        """Sync, so many pages at most."""
        for _ in range(pages):
            page = await sync(self.user, cursor=self._cursor, limit=limit, events=events)
            told_in_one, self._in_one = self._done and self._in_one, self._done and page["done"]
            doubles = len(self.state.doubles)
            await take_page(self, page)
            if not told_in_one:  # what came between the pages of a sync was on one of them, and comes again
                del self.state.doubles[doubles:]
            for left in page["left"]:
                self.entries.pop(left["conversation_id"], None)
            for entry in page["conversations"]:
                self.entries[entry["conversation_id"]] = {
                    name: value for name, value in entry.items() if name not in ("events", "events_truncated")
                }
            self._cursor, self._done = page["cursor"], page["done"]
            if self._done:
                break

    async def finish(self) -> None:
        """Sync to the end, and if that was begun earlier once more: it ends at what there was then."""
        begun = not self._done
        await self.pull(pages=MANY, limit=2, events=2)
        if begun:
            await self.pull(pages=MANY, limit=2, events=2)

    def inbox(self) -> dict[str, Json]:
        """As the pages said."""
        return self.entries


async def take_page(client: ObservedClient, page: Json) -> None:
    """The events of a page of a sync; what it leaves out is read from the conversation."""
    assert page["reset"] is False
    for left in page["left"]:
        client.state.floors.pop(left["conversation_id"], None)
        if left["events_truncated"]:
            client.excused.add(left["conversation_id"])
        for event in left["events"]:
            client.state.take(event)
    for entry in page["conversations"]:
        if entry["events_truncated"]:
            await _read_what_is_left_out(client, entry)
        for event in entry["events"]:
            client.state.take(event)


async def _read_what_is_left_out(client: ObservedClient, entry: Json) -> None:
    conversation_id = entry["conversation_id"]
    after = max(client.state.events.get(conversation_id, {}), default=0)
    first = entry["events"][0]["version"] if entry["events"] else entry["version"] + 1
    found = [event async for event in all_events(client.user, conversation_id, after=after) if event["version"] < first]
    if not found:  # the user is out of it by now
        client.excused.add(conversation_id)
    for event in found:
        client.state.fill(event, told=True)
