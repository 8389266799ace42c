"""Tokens at the HTTP door: what is believed, what is not, and how that is told."""

import base64
import json
import time

import httpx
import jwt
import pytest

from tests.api.conftest import User, assert_problem
from tests.running import Running

PATH = "/v1/conversations/123456789"


async def get(client: httpx.AsyncClient, authorization: str | None) -> httpx.Response:
    return await client.get(PATH, headers={} if authorization is None else {"authorization": authorization})


def unsigned(claims: dict[str, object], algorithm: str = "none") -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


async def test_a_good_token_is_believed(alice: User) -> None:
    assert_problem(await alice.get(PATH), 404, "not_found")


async def test_no_token_is_asked_for_one(client: httpx.AsyncClient) -> None:
    response = await get(client, None)
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "HS512", "RS256", ""])
async def test_an_unsigned_token_is_refused(client: httpx.AsyncClient, algorithm: str) -> None:
    token = unsigned({"sub": "alice", "exp": int(time.time()) + 600}, algorithm)
    response = await get(client, f"Bearer {token}")
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_token_of_another_secret_is_refused(client: httpx.AsyncClient) -> None:
    token = jwt.encode({"sub": "alice", "exp": time.time() + 600}, "x" * 43, algorithm="HS256")
    assert_problem(await get(client, f"Bearer {token}"), 401, "unauthenticated")


async def test_a_changed_token_is_refused(client: httpx.AsyncClient, alice: User, mallory: User) -> None:
    header, _, signature = alice.token.split(".")
    claims = mallory.token.split(".")[1]
    assert_problem(await get(client, f"Bearer {header}.{claims}.{signature}"), 401, "unauthenticated")


async def test_an_expired_token_says_so(client: httpx.AsyncClient, running: Running) -> None:
    response = await get(client, f"Bearer {running.token('alice', ttl_s=-10)}")
    assert_problem(response, 401, "token_expired")
    assert "www-authenticate" in response.headers


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Basic YTpi", "Token abc", "Bearer a b", "Bearer a,b", "Bearer é"],
)
async def test_another_form_of_authorization_is_refused(client: httpx.AsyncClient, authorization: str) -> None:
    response = await client.get(PATH, headers=[(b"authorization", authorization.encode("latin1"))])
    assert_problem(response, 401, "unauthenticated")


async def test_two_tokens_are_refused(client: httpx.AsyncClient, alice: User, bob: User) -> None:
    headers = [("authorization", f"Bearer {user.token}") for user in (alice, bob)]
    assert_problem(await client.get(PATH, headers=headers), 401, "unauthenticated")


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_in_the_url_is_refused(alice: User, client: httpx.AsyncClient, name: str) -> None:
    for caller in (client.get(PATH, params={name: alice.token}), alice.get(PATH, **{name: alice.token})):
        problem = assert_problem(await caller, 401, "unauthenticated")
        assert "header" in problem["detail"]
        assert alice.token not in json.dumps(problem)


async def test_a_user_id_that_is_none_is_refused(client: httpx.AsyncClient, running: Running) -> None:
    for user_id in ("", "a b", "é", "x" * 65):
        assert_problem(await get(client, f"Bearer {running.token(user_id)}"), 401, "unauthenticated")


async def test_every_path_of_users_wants_a_token(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation["security"]:
                response = await client.request(method.upper(), path.replace("{conversation_id}", "1"))
                assert_problem(response, 401, "unauthenticated")
                tried += 1
    assert tried >= 9


async def test_a_ticket_is_issued(alice: User) -> None:
    response = await alice.post("/v1/tickets")
    assert response.status_code == 201
    ticket = response.json()
    assert ticket["expires_in"] == 30
    assert len(ticket["ticket"]) >= 20
    assert (await alice.post("/v1/tickets", {})).json()["ticket"] != ticket["ticket"]
