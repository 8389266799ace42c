"""The HTTP calls of the public protocol."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from runtime.client.connection import Connection
from runtime.client.errors import ApiError, ConnectionLost

Json = dict[str, Any]

TIMEOUT_S: Final = 30.0
PAGE_MAX: Final = 200  # the protocol's limit of messages a page


def new_client_msg_id() -> str:
    """An id that makes one send repeatable."""
    return secrets.token_urlsafe(15)


class HttpClient:
    """Calls a server as one user, or with `token=` as another, over kept-alive connections.

    Every method raises `ApiError` when the server refuses and `ConnectionLost` when no answer came within
    `timeout_s`; a lost request may have had its effect. Answers are the protocol's JSON objects.

    Args:
        url: of the server, `http://127.0.0.1:8080`.
        token: of the user.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = urlsplit(url.rstrip("/"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"a server's URL is http://host:port, not {url!r}")
        self._token = token
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: dict[str, Any] | None = None,
        token: str | None = None,
    ) -> Any:
        """Any call of the protocol: `request("GET", "/v1/inbox", query={"limit": 20})`. `None` in a query is left out.

        Raises:
            ApiError, ConnectionLost.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = self._url.path + path + ("?" + urlencode(given) if given else "")
        headers = f"authorization: Bearer {token or self._token}\r\naccept: application/json\r\n"
        body = b""
        if json is not None:
            headers += "content-type: application/json\r\n"
            body = msgspec.json.encode(json)
        try:
            async with asyncio.timeout(self._timeout_s):
                status, answer = await self._exchange(method, target, headers, body)
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {self._timeout_s:g} s") from error
        try:
            decoded = msgspec.json.decode(answer) if answer else None
        except msgspec.DecodeError:
            decoded = None
        if not 200 <= status < 300:
            raise ApiError.of(decoded, status=status)
        return decoded

    async def _exchange(self, method: str, target: str, headers: str, body: bytes) -> tuple[int, bytes]:
        connection = self._idle.pop() if self._idle else await Connection.open(self._url)
        try:
            return await connection.request(method, target, headers, body)
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                await connection.close()

    # -- conversations --------------------------------------------------------------------------------------

    async def create_conversation(
        self,
        kind: str,
        members: list[str],
        *,
        name: str | None = None,
        settings: Json | None = None,
        client_conversation_id: str | None = None,
    ) -> Json:
        """Open a conversation; a direct pair's, or a repeated `client_conversation_id`'s, is found."""
        body: Json = {"kind": kind, "members": members}
        optional = {"name": name, "settings": settings, "client_conversation_id": client_conversation_id}
        body.update((key, value) for key, value in optional.items() if value is not None)
        return await self._object("POST", "/v1/conversations", json=body)

    async def conversation(self, conversation_id: str) -> Json:
        """A conversation the user is a member of."""
        return await self._object("GET", f"/v1/conversations/{conversation_id}")

    async def change_members(
        self, conversation_id: str, *, add: list[str] | None = None, remove: list[str] | None = None
    ) -> Json:
        """Add and remove members, at most 1,000 in a call, all or nothing; what is already so stays so."""
        changes = {"add": add or [], "remove": remove or []}
        return await self._object("POST", f"/v1/conversations/{conversation_id}/members", json=changes)

    async def members(self, conversation_id: str, *, after: str | None = None, limit: int | None = None) -> Json:
        """A page of members."""
        query = {"after": after, "limit": limit}
        return await self._object("GET", f"/v1/conversations/{conversation_id}/members", query=query)

    # -- messages -------------------------------------------------------------------------------------------

    async def post(
        self,
        conversation_id: str,
        text: str,
        *,
        client_msg_id: str | None = None,
        reply_to: str | None = None,
        mentions: list[str] | None = None,
        token: str | None = None,
    ) -> Json:
        """Post a text; the ack. Repeat a lost one with the same `client_msg_id`: it is posted once."""
        body: Json = {"client_msg_id": client_msg_id or new_client_msg_id(), "body": {"type": "text", "text": text}}
        if reply_to is not None:
            body["reply_to"] = reply_to
        if mentions:
            body["mentions"] = mentions
        return await self._object("POST", f"/v1/conversations/{conversation_id}/messages", json=body, token=token)

    async def history(
        self,
        conversation_id: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        min_version: int | None = None,
    ) -> Json:
        """A page of messages, ascending by seq; the newest when neither `before` nor `after` is given."""
        query = {"before": before, "after": after, "limit": limit, "min_version": min_version}
        return await self._object("GET", f"/v1/conversations/{conversation_id}/messages", query=query)

    async def messages(self, conversation_id: str, *, min_version: int | None = None) -> AsyncIterator[Json]:
        """Every message from the first to the last, read page by page."""
        after = 0
        while True:
            page = await self.history(conversation_id, after=after, limit=PAGE_MAX, min_version=min_version)
            for message in page["messages"]:
                yield message
            if not page["has_more"]:
                return
            after = page["messages"][-1]["seq"]

    async def events(self, conversation_id: str, *, after: int, limit: int | None = None) -> Json:
        """Every event after a version, in order."""
        query = {"after": after, "limit": limit}
        return await self._object("GET", f"/v1/conversations/{conversation_id}/events", query=query)

    # -- the rest -------------------------------------------------------------------------------------------

    async def ticket(self) -> str:
        """A one-time ticket for a browser's WebSocket or EventSource."""
        answer = await self._object("POST", "/v1/tickets")
        return str(answer["ticket"])

    async def version(self) -> Json:
        """What the server says of itself."""
        return await self._object("GET", "/version")

    async def _object(self, method: str, path: str, **call: Any) -> Json:
        answer = await self.request(method, path, **call)
        if not isinstance(answer, dict):
            raise ConnectionLost("what answers there is not Riverrun")
        return answer
