"""What operators ask of a process: does it live, is it ready, what is it, what does it count. No token."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from starlette.responses import Response

from api import metrics
from api.context import ApiContext
from api.endpoint import JSON, OpenEndpoint
from api.errors import problem
from api.schema import Problem, Status
from domain.errors import DomainError, Unavailable

log = structlog.get_logger(__name__)


def alive() -> Response:
    """What says that a process lives."""
    return _json(Status("ok"))


async def healthz(_context: ApiContext) -> Response:
    return alive()


async def readyz(context: ApiContext) -> Response:
    checks = context.readiness
    reasons = await asyncio.gather(*(_reason(check, context.limits.readiness_s) for check in checks.values()))
    not_ready = {name: reason for name, reason in zip(checks, reasons, strict=True) if reason is not None}
    if not_ready:
        log.warning("not ready", **{f"not_ready_{name}": reason for name, reason in not_ready.items()})
        return problem(Unavailable(f"not ready: {', '.join(not_ready)}"), not_ready=not_ready)
    return _json(Status("ready"))


async def _reason(check: Callable[[], Awaitable[None]], timeout_s: float) -> str | None:
    """Why a check fails; `None` when it does not. Of a foreign exception its kind is told, not its words."""
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except DomainError as error:
        return error.detail
    except Exception as error:  # noqa: BLE001  # whatever a check raises means not ready
        log.debug("a readiness check failed", error=repr(error))
        return type(error).__name__
    return None


async def version(context: ApiContext) -> Response:
    return _json(context.versions)


async def prometheus(_context: ApiContext) -> Response:
    return metrics.exposition()


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON)


ENDPOINTS = (
    OpenEndpoint("/healthz", healthz, "Whether the process lives.", {200: (Status, "It does.")}),
    OpenEndpoint(
        "/readyz",
        readyz,
        "Whether it can do its work; if not, what is missing.",
        {200: (Status, "It can."), 503: (Problem, "It cannot: `not_ready` says why.")},
    ),
    OpenEndpoint("/version", version, "What runs here.", {200: (dict[str, str], "Versions by name.")}),
    OpenEndpoint("/metrics", prometheus, "Figures for Prometheus.", {200: (str, "Text exposition.")}),
)
