"""What every HTTP request gets: an id, its trace, response headers, a count, and its errors told as problems."""

import logging
import re
import time
import uuid
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.endpoint import TEMPLATE
from api.errors import ApiError, MethodNotAllowed, problem
from domain.errors import DomainError, Invalid, NotFound

log = structlog.get_logger(__name__)
level = logging.getLogger(__name__)  # asked before a line of debugging is made: structlog makes it first

REQUEST_ID: Final = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_HEADERS: Final = {
    "Cache-Control": "no-store",  # everything here is somebody's own, and changes
    "X-Content-Type-Options": "nosniff",
}


class Requests:
    """Pure ASGI middleware, around everything. WebSockets pass through: their gateway does the like for frames.

    Handlers find `correlation_id` and `trace` in the request's state. A client's `X-Request-Id` is taken when it
    is 1 to 128 safe characters, else one is made; the response says which. A `traceparent` that is not
    well-formed is left out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        correlation_id = headers.get(REQUEST_ID, "")
        if not _REQUEST_ID.fullmatch(correlation_id):
            correlation_id = uuid.uuid4().hex
        trace = headers.get("traceparent", "")
        state = scope.setdefault("state", {})
        state["correlation_id"] = correlation_id
        state["trace"] = trace if _TRACEPARENT.fullmatch(trace) else ""
        began_s = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response = MutableHeaders(scope=message)
                response[REQUEST_ID] = correlation_id
                for name, value in _HEADERS.items():
                    response.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                status = status or 499  # nobody is there to be answered; nginx's word for it
            except Exception as error:
                if status:  # half an answer is out: only the server can break it off
                    raise
                await problem(_told(error, scope))(scope, receive, send_with_headers)
            finally:
                took_s = time.perf_counter() - began_s
                metrics.observe(scope["method"], scope.get(TEMPLATE), status, took_s)
                if level.isEnabledFor(logging.DEBUG):
                    asked = {"method": scope["method"], "path": scope.get(TEMPLATE)}
                    log.debug("request answered", **asked, status=status, took_ms=round(took_s * 1000, 1))


def _told(error: Exception, scope: Scope) -> Exception:
    """The error as the client is told it; what is no refusal is logged here, and only here."""
    if not isinstance(error, ApiError | DomainError):
        log.error("a request failed", method=scope["method"], path=scope.get(TEMPLATE), exc_info=error)
    return error


async def routing_problem(_request: Request, error: Exception) -> Response:
    """What Starlette itself refuses, in our words: no such path, no such method there."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and error.headers:
        return problem(MethodNotAllowed(", ".join(sorted(error.headers["Allow"].split(", ")))))
    return problem(NotFound("there is no such path") if error.status_code == 404 else Invalid(error.detail))
