"""Cursors that cannot be believed: the client starts again, and nothing worse happens."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from streams.cursor import CHECK_BYTES, Cursor
from tests.api.conftest import User, assert_problem
from tests.api.sessions import Sessions, sessions_fixture  # noqa: F401  # the fixture `sessions`
from tests.api.sockets import Json
from tests.running import Running

WAIT_S = 20.0
FAR = 1 << 40  # further than any log of a test goes


@dataclass
class Given:
    """What a forger may have in hand."""

    running: Running
    user: User
    token: str  # the user's own, and good
    others: str  # another user's, and good

    @property
    def key(self) -> bytes:
        return (self.running.data_dir / "cursor.key").read_text().strip().encode()

    @property
    def cursor(self) -> Cursor:
        return Cursor.decode(self.token, self.key, self.user.user_id, partitions=1)

    def sealed(self, cursor: Cursor, *, key: bytes | None = None) -> str:
        return cursor.encode(key or self.key, self.user.user_id)


def _flipped(token: str, place: int) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token + "=="))
    raw[place] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


BAD: dict[str, Callable[[Given], str]] = {
    "forged at its beginning": lambda given: _flipped(given.token, 0),
    "forged in its numbers": lambda given: _flipped(given.token, CHECK_BYTES + 3),
    "of another format": lambda given: _flipped(given.token, CHECK_BYTES),
    "cut": lambda given: given.token[:-4],
    "cut to almost nothing": lambda given: given.token[:1],
    "longer": lambda given: given.token + "AAAA",
    "of another user": lambda given: given.others,
    "of another deployment": lambda given: given.sealed(given.cursor, key=b"the key of somebody else's servers"),
    "of another number of partitions": lambda given: given.sealed(Cursor((1, 1))),
    "from the future": lambda given: given.sealed(replace(given.cursor, positions=(FAR,))),
    "from the future of one's own": lambda given: given.sealed(replace(given.cursor, own=FAR)),
    "not base64": lambda given: "?!",
    "not ASCII": lambda given: "né",
    "spaces": lambda given: "   ",
    "very long": lambda given: "A" * 40_000,
}


@pytest.fixture(params=BAD)
async def given(request: pytest.FixtureRequest, running: Running, alice: User, bob: User) -> Given:
    await alice.open_group(bob)
    tokens = [(await user.get("/v1/inbox")).json()["cursor"] for user in (alice, bob)]
    return Given(running, alice, *tokens)


@pytest.fixture
def bad(request: pytest.FixtureRequest, given: Given) -> str:
    name: str = request.node.callspec.params["given"]
    return BAD[name](given)


async def test_sync_says_to_start_again(given: Given, bad: str) -> None:
    response = await given.user.get("/v1/sync", cursor=bad)
    assert response.status_code == 200, response.text
    page = response.json()
    assert page == {"conversations": [], "left": [], "cursor": page["cursor"], "done": True, "reset": True}
    conversation = await given.user.open_group()
    following = (await given.user.get("/v1/sync", cursor=page["cursor"])).json()
    assert following["reset"] is False
    assert [entry["conversation_id"] for entry in following["conversations"]] == [conversation]


async def test_a_session_begins_anew(given: Given, bad: str, sessions: Sessions) -> None:
    session = await sessions.open(given.user, cursor=bad)
    assert session.hello["recovered"] is False
    conversation = await given.user.open_group()
    await session.until(lambda client: client.versions(int(conversation)) == [1])
    synced = await session.request("sync", cursor=session.hello["cursor"])
    assert [entry["conversation_id"] for entry in synced["ok"]["conversations"]] == [conversation]
    assert [event["conversation_id"] for event in session.events] == [conversation]


@pytest.mark.parametrize("where", ["last-event-id", "cursor"])
async def test_a_stream_begins_anew(given: Given, bad: str, where: str) -> None:
    raw = bad.strip().encode() or b"-"
    headers = {"last-event-id": raw} if where == "last-event-id" else {}
    query = {"cursor": bad} if where == "cursor" else {}
    async with stream(given.user, headers, query) as pushes:
        kind, connected = await anext(pushes)
        assert (kind, connected["recovered"]) == ("connected", False)
        conversation = await given.user.open_group()
        kind, push = await anext(pushes)
        assert (kind, push["event"]["conversation_id"]) == ("event", conversation)


async def test_a_good_cursor_is_believed(running: Running, alice: User, sessions: Sessions) -> None:
    """What the others are held against."""
    conversation = await alice.open_group()
    cursor = (await alice.get("/v1/inbox")).json()["cursor"]
    given = Given(running, alice, cursor, "")
    assert given.sealed(given.cursor) == cursor
    await alice.say(conversation, "hello")
    assert (await alice.get("/v1/sync", cursor=cursor)).json()["reset"] is False
    session = await sessions.open(alice, cursor=cursor)
    assert session.hello["recovered"] is True
    await session.until(lambda client: client.versions(int(conversation)) == [2])
    async with stream(alice, {"last-event-id": cursor.encode()}, {}) as pushes:
        kind, connected = await anext(pushes)
        assert (kind, connected["recovered"]) == ("connected", True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"events": 201}, "events"),
        ({"events": -1}, "events"),
        ({"since": 1}, "since"),
    ],
)
async def test_a_sync_that_cannot_be_is_refused(
    alice: User, sessions: Sessions, query: dict[str, object], field: str
) -> None:
    assert_problem(await alice.get("/v1/sync", **query), 422, "invalid", field=field)
    session = await sessions.open(alice)
    error = (await session.request("sync", **query))["error"]
    assert (error["code"], error["field"]) == ("invalid", field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"page": "?"}, "page"),
        ({"page": "AAAA"}, "page"),
        ({"page": "A" * 65}, "page"),
        ({"hidden": "perhaps"}, "hidden"),
        ({"cursor": "x"}, "cursor"),
    ],
)
async def test_an_inbox_page_that_cannot_be_is_refused(alice: User, query: dict[str, object], field: str) -> None:
    assert_problem(await alice.get("/v1/inbox", **query), 422, "invalid", field=field)


@pytest.mark.parametrize(
    "versions", [{"x": 1}, {"1": -1}, {"1": "1"}, {str(i + 1): 1 for i in range(1001)}, ["1"], {"1": 1 << 63}]
)
async def test_versions_that_cannot_be_are_refused(alice: User, sessions: Sessions, versions: object) -> None:
    error, code = await sessions.refused(alice, versions=versions)
    assert (error["code"], code) == ("invalid", 3502)
    assert error["field"].startswith("versions")


async def test_versions_from_the_future_leave_nothing_out_for_ever(alice: User, sessions: Sessions) -> None:
    """Who says to have what is not there yet is told what comes after that, and all of the others."""
    conversation = await alice.open_group()
    cursor = (await alice.get("/v1/inbox")).json()["cursor"]
    session = await sessions.open(alice, cursor=cursor, versions={conversation: 1_000, "7000000000000000001": 5})
    other = await alice.open_group()
    await session.until(lambda client: client.versions(int(other)) == [1])


@asynccontextmanager
async def stream(
    user: User, headers: dict[str, bytes], query: dict[str, str]
) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
    """The pushes of a stream, as kind and data."""
    every = {b"authorization": f"Bearer {user.token}".encode()}
    every |= {name.encode(): value for name, value in headers.items()}  # as bytes: not every id is ASCII
    async with (
        asyncio.timeout(WAIT_S),
        user.client.stream("GET", "/v1/stream", headers=every, params=query) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield _pushes(response.aiter_lines())


async def _pushes(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Json]]:
    kind = ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
