"""Readiness: what is not ready is named, and a check that hangs does not hang the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from api.context import ApiContext, Limits
from api.health import readyz
from domain.errors import Unavailable


async def answer(**checks: Callable[[], Awaitable[None]]) -> tuple[int, dict[str, Any]]:
    """What `/readyz` says; it uses no more of the context than this."""
    context = cast("ApiContext", SimpleNamespace(readiness=checks, limits=Limits(readiness_s=0.05)))
    response = await readyz(context)
    return response.status_code, msgspec.json.decode(response.body)


async def _fine() -> None:
    return


async def _hangs() -> None:
    await asyncio.Event().wait()


async def _says_why() -> None:
    raise Unavailable("partitions are not assigned yet")


async def _is_broken() -> None:
    raise OSError("connection to postgresql://riverrun:swordfish@db refused")


async def test_all_fine_is_ready() -> None:
    assert await answer(log=_fine, postgres=_fine) == (200, {"status": "ready"})


async def test_what_is_not_ready_is_named_without_secrets() -> None:
    status, problem = await answer(log=_fine, valkey=_hangs, writer=_says_why, postgres=_is_broken)
    assert status == 503
    assert (problem["code"], problem["retryable"]) == ("unavailable", True)
    assert problem["not_ready"] == {
        "valkey": "no answer within 0.05 s",
        "writer": "partitions are not assigned yet",
        "postgres": "OSError",
    }
    assert "swordfish" not in str(problem)
