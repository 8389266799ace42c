"""What goes wrong inside: told to the log with everything, to the client with nothing but the code."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.errors import RateLimited
from api.requests import Requests
from tests.api.conftest import assert_problem


async def _broken(_request: Request) -> Response:
    raise RuntimeError("the password is swordfish")


async def _busy(_request: Request) -> Response:
    raise RateLimited("too many", retry_after_s=7)


@pytest_asyncio.fixture(loop_scope="session")
async def broken() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route("/broken", _broken), Route("/busy", _busy)], middleware=[Middleware(Requests)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_an_unexpected_error_is_logged_and_not_told(broken: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        response = await broken.get("/broken", headers={"x-request-id": "abc"})
    assert_problem(response, 500, "internal")
    assert "swordfish" not in response.text
    assert response.headers["x-request-id"] == "abc"
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["correlation_id"] == "abc"
    assert "swordfish" in str(line["exc_info"])


async def test_a_limit_says_when_to_come_again(broken: httpx.AsyncClient) -> None:
    response = await broken.get("/busy")
    assert assert_problem(response, 429, "rate_limited")["retry_after"] == 7
    assert response.headers["retry-after"] == "7"


async def test_at_debug_every_answer_is_told_and_else_none(
    broken: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await broken.get("/busy")
        assert logs == []
        caplog.set_level(logging.DEBUG)
        await broken.get("/busy", headers={"x-request-id": "abc"})
    (line,) = logs
    assert (line["event"], line["status"], line["correlation_id"]) == ("request answered", 429, "abc")
