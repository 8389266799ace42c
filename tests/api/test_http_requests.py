"""What every request gets, paths and methods that are none, and what operators ask."""

import httpx
import pytest

from tests.api.conftest import User, assert_problem


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/conversations", "/v1/conversations/", "/healthz/", "/v1/healthz"])
async def test_a_path_that_is_none_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/conversations/1/messages", "GET, POST"),
        ("PUT", "/v1/conversations/1", "GET, PATCH"),
        ("GET", "/v1/conversations", "POST"),
        ("HEAD", "/v1/tickets", "POST"),
        ("POST", "/healthz", "GET"),
        ("TRACE", "/version", "GET"),
        ("POST", "/v1/stream", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_none_names_those_that_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert response.headers["allow"] == allowed
    if method != "HEAD":
        assert_problem(response, 405, "method_not_allowed")
    assert response.status_code == 405


async def test_every_response_forbids_storing_and_sniffing(client: httpx.AsyncClient, alice: User) -> None:
    for response in (await client.get("/healthz"), await client.get("/none"), await alice.post("/v1/tickets")):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_request_id_is_taken_or_made(client: httpx.AsyncClient) -> None:
    given = await client.get("/healthz", headers={"x-request-id": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    for bad in ("", "a b", "x" * 129, "<script>", "a\u00e9"):
        made = await client.get("/healthz", headers=[(b"x-request-id", bad.encode())])
        assert len(made.headers["x-request-id"]) == 32
        assert made.headers["x-request-id"] != bad
    assert (await client.get("/none", headers={"x-request-id": "abc"})).headers["x-request-id"] == "abc"


async def test_a_live_and_ready_process_says_so(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    assert (await client.head("/readyz")).status_code == 200


async def test_the_version_is_told(client: httpx.AsyncClient) -> None:
    versions = (await client.get("/version")).json()
    assert versions["riverrun"]


async def test_requests_are_counted_by_path_template(client: httpx.AsyncClient, alice: User) -> None:
    await alice.get("/v1/conversations/123456")
    await client.get("/a/path/nobody/has")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    counted = [line for line in response.text.splitlines() if line.startswith("riverrun_http_requests_total{")]
    assert any('path="/v1/conversations/{conversation_id}",status="404"' in line for line in counted)
    assert any('path="unknown",status="404"' in line for line in counted)
    assert "123456" not in response.text
    assert "/a/path" not in response.text
