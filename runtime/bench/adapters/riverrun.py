"""Riverrun, through its public API: groups are made over HTTP, sessions are WebSockets."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Final, Self

import msgspec

from runtime.bench.adapter import Inbox, Op, Seat, Session
from runtime.bench.errors import AdapterError
from runtime.bench.socket import PING, LightSocket, open_socket
from runtime.client import ClientError, HttpClient, SessionClosed
from runtime.tokens import mint

MEMBERS_PER_CALL: Final = 1_000  # the protocol's limit, the creator counted
PAGE: Final = 50
TOKEN_TTL_S: Final = 24 * 3600


class _Connected(msgspec.Struct):
    cursor: str = ""
    recovered: bool = False


class _Ok(msgspec.Struct):
    ok: _Connected


class _Event(msgspec.Struct):
    conversation_id: str = ""
    version: int = 0


class _Push(msgspec.Struct):
    event: _Event = msgspec.field(default_factory=_Event)
    cursor: str = ""


_answer_of = msgspec.json.Decoder(_Ok).decode
_push_of = msgspec.json.Decoder(_Push).decode


class RiverrunAdapter:
    """See `adapter.Adapter`.

    Args:
        url: `http://host:port`.
        jwt_secret: that the server checks tokens with.
        server_pids: the server's processes by name.
    """

    operations = frozenset(Op)
    ack = "fsynced in the log, in its place (seq)"

    def __init__(
        self, url: str | None = None, jwt_secret: str = "", server_pids: Mapping[str, int] | None = None
    ) -> None:
        if url is None:
            raise AdapterError("riverrun needs a URL, http://host:port")
        self._url = url
        self._secret = jwt_secret
        self._pids = dict(server_pids or {})

    async def prepare(self, run: str, users: int, groups: Sequence[Sequence[int]]) -> list[Seat]:
        """See `adapter.Adapter`."""
        names = [f"bench-{run}-{number}" for number in range(users)]
        tokens = [mint(name, ttl_s=TOKEN_TTL_S, admin=False, secret=self._secret) for name in names]
        places: list[dict[int, str]] = [{} for _ in names]
        async with HttpClient(self._url, tokens[0]) as client:
            for number, members in enumerate(groups):
                conversation_id = await self._group(
                    client, f"bench {run} {number}", [names[member] for member in members], tokens[members[0]]
                )
                for member in members:
                    places[member][number] = conversation_id
        return [Seat(*seat) for seat in zip(names, tokens, places, strict=True)]

    async def _group(self, client: HttpClient, name: str, members: Sequence[str], token: str) -> str:
        crew = list(members[1:MEMBERS_PER_CALL])
        body = {"kind": "group", "name": name, "members": crew}
        created = await client.request("POST", "/v1/conversations", json=body, token=token)
        conversation_id = str(created["conversation_id"])
        for start in range(MEMBERS_PER_CALL, len(members), MEMBERS_PER_CALL):
            more = {"add": list(members[start : start + MEMBERS_PER_CALL]), "remove": []}
            await client.request("POST", f"/v1/conversations/{conversation_id}/members", json=more, token=token)
        return conversation_id

    async def connect(self, seat: Seat, inbox: Inbox, *, resumable: bool, follows: Session | None = None) -> Session:
        """See `adapter.Adapter`."""
        assert follows is None or isinstance(follows, RiverrunSession)
        return await RiverrunSession.opened(self._url, seat.credential, inbox, resumable=resumable, follows=follows)

    async def about(self) -> dict[str, str]:
        """See `adapter.Adapter`."""
        token = mint("bench", ttl_s=60, admin=False, secret=self._secret)
        async with HttpClient(self._url, token) as client:
            versions = await client.version()
        return {"riverrun": "?", **{name: str(version) for name, version in versions.items()}}

    def pids(self) -> dict[str, int]:
        """See `adapter.Adapter`."""
        return dict(self._pids)

    async def tidy(self) -> None:
        """The log forgets nothing: what was posted stays."""


class RiverrunSession:
    """See `adapter.Session`. If it is resumable it keeps what another needs to begin where it ended."""

    def __init__(
        self, socket: LightSocket, inbox: Inbox, *, resumable: bool, follows: "RiverrunSession | None"
    ) -> None:
        self._socket = socket
        self._inbox = inbox
        self._ids = secrets.token_hex(6)
        self._leaving = False
        self._resumable = resumable
        answer = _answer_of(socket.answer).ok
        self.cursor = answer.cursor
        # Of what was pushed since the cursor.
        self.versions: dict[str, int] = dict(follows.versions) if follows is not None and answer.recovered else {}
        socket.listen(self._take_all if resumable else self._take)
        socket.closed.add_done_callback(lambda closed: self._ended(closed.result()))

    @classmethod
    async def opened(
        cls, url: str, token: str, inbox: Inbox, *, resumable: bool, follows: "RiverrunSession | None"
    ) -> Self:
        """A session.

        Raises:
            ClientError: nobody there, or not let in.
        """
        hello: dict[str, object] = {"token": token, "device_id": "bench"}
        if follows is not None:
            hello |= {"cursor": follows.cursor, "versions": follows.versions}
        socket = await open_socket(url, token, hello=msgspec.json.encode({"id": 1, "connect": hello}))
        return cls(socket, inbox, resumable=resumable, follows=follows)

    def send(self, group: str, number: int, text: str) -> None:
        """See `adapter.Session`."""
        self._socket.send(
            f'{{"id":{number},"send":{{"conversation_id":"{group}","client_msg_id":"{self._ids}-{number}",'
            f'"body":{{"type":"text","text":"{text}"}}}}}}'.encode()
        )

    def read(self, group: str, number: int) -> None:
        """See `adapter.Session`."""
        self._socket.send(f'{{"id":{number},"history":{{"conversation_id":"{group}","limit":{PAGE}}}}}'.encode())

    def typing(self, group: str, number: int) -> None:
        """See `adapter.Session`."""
        self._socket.send(f'{{"id":{number},"typing":{{"conversation_id":"{group}","active":true}}}}'.encode())

    def keep_alive(self) -> None:
        """See `adapter.Session`."""
        self._socket.send(PING)

    def drop(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._socket.drop()

    async def close(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._socket.close()
        await self._socket.closed

    def _ended(self, closed: ClientError) -> None:
        if not self._leaving:
            self._inbox.ended(f"closed {closed.close_code}" if isinstance(closed, SessionClosed) else str(closed))

    def _take(self, payload: bytes) -> None:
        """One frame: objects, one a line. Most hold pushes only, and those are looked at no further."""
        if b'{"id":' not in payload:
            self._inbox.delivered(payload)
            return
        for line in payload.split(b"\n"):
            if line.startswith(b'{"id":'):
                self._answered(line)
            else:
                self._inbox.delivered(line)

    def _answered(self, line: bytes) -> None:
        number = int(line[6 : line.index(b",")])
        if b'"error":' in line[: line.index(b",") + 10]:
            self._inbox.refused(number, str(msgspec.json.decode(line)["error"]["code"]))
        else:
            self._inbox.done(number)

    def _take_all(self, payload: bytes) -> None:
        """Also keep cursor and versions."""
        self._take(payload)
        for line in payload.split(b"\n"):
            if line.startswith(b'{"event":'):
                event = _push_of(line).event
                if event.conversation_id and event.version:
                    self.versions[event.conversation_id] = event.version
            elif line.startswith(b'{"cursor":'):
                self.cursor, self.versions = _push_of(line).cursor, {}
