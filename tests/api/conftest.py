"""A running Riverrun, and its users as tests see them: through the public API only."""

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.running import Running

Json = dict[str, Any]


@dataclass(frozen=True)
class User:
    """Somebody with a token. Every call returns the response, whatever its status."""

    client: httpx.AsyncClient
    user_id: str
    token: str

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.request("GET", path, params=query or None)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.request("POST", path, json=body) if body is not None else await self.request("POST", path)

    async def patch(self, path: str, body: Any) -> httpx.Response:
        return await self.request("PATCH", path, json=body)

    async def send(self, path: str, raw: Any, **headers: str) -> httpx.Response:
        """A POST of these very bytes."""
        return await self.request("POST", path, content=raw, headers={"content-type": "application/json", **headers})

    async def request(self, method: str, path: str, *, headers: Any = None, **rest: Any) -> httpx.Response:
        authorization = {"authorization": f"Bearer {self.token}"}
        return await self.client.request(method, path, headers={**authorization, **(headers or {})}, **rest)

    async def open_group(self, *members: "User", **fields: Any) -> str:
        """The id of a new group."""
        names = [member.user_id for member in members]
        response = await self.post("/v1/conversations", {"kind": "group", "members": names, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["conversation_id"])

    async def say(self, conversation_id: str, text: str, **fields: Any) -> Json:
        """Post a text; the ack."""
        response = await self.post(f"/v1/conversations/{conversation_id}/messages", message(text, **fields))
        assert response.status_code in (200, 201), response.text
        return dict(response.json())


def message(text: str = "hello", **fields: Any) -> Json:
    return {"client_msg_id": secrets.token_hex(8), "body": {"type": "text", "text": text}, **fields}


def assert_problem(response: httpx.Response, status: int, code: str, *, field: str | None = None) -> Json:
    """The problem document, which is whole and of this code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = dict(response.json())
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:riverrun:error:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["retryable"] is (code in {"unavailable", "rate_limited"})
    assert problem.get("field") == field
    return problem


@pytest_asyncio.fixture(loop_scope="session")
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        yield client


NewUser = Callable[[str], User]


@pytest.fixture
def new_user(client: httpx.AsyncClient, running: Running) -> NewUser:
    """Makes a user whom no other test knows."""

    def make(name: str) -> User:
        user_id = f"{name}-{secrets.token_hex(6)}"
        return User(client, user_id, running.token(user_id))

    return make


@pytest.fixture
def alice(new_user: NewUser) -> User:
    return new_user("alice")


@pytest.fixture
def bob(new_user: NewUser) -> User:
    return new_user("bob")


@pytest.fixture
def mallory(new_user: NewUser) -> User:
    """A member of nothing."""
    return new_user("mallory")
