"""An endpoint of the HTTP API: how it is served, and all that routes and OpenAPI need to know of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.auth import Principal
from api.context import ApiContext
from api.decoding import decode, decode_query
from api.errors import MethodNotAllowed, TooLarge, UnsupportedMediaType

Q = TypeVar("Q")
B = TypeVar("B")

# An honest client that sent too much reads its answer when it has sent all; one that goes on for ever is cut off.
DISCARDED_MAX_BYTES = 4 * 1024 * 1024

JSON = "application/json"
LINES = "application/x-ndjson"
TEMPLATE = "riverrun.path"  # in the scope: the path as the table has it, for metrics


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One request, authenticated and decoded. `query` and `body` are of the endpoint's types.

    Attributes:
        gone: returns when the client is gone; for what is long and for nobody else.
    """

    context: ApiContext
    principal: Principal
    path: Mapping[str, str]
    query: Q
    body: B
    correlation_id: str
    trace: str
    accept: str
    gone: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers: a struct, to be encoded as JSON."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lines:
    """What a handler answers line by line: each one JSON object. What goes wrong later is for the lines to say."""

    lines: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Document:
    """What a handler answers in a form that the client chose, piece by piece; that it is whole, its length says.

    Attributes:
        close: called once it was taken, or nobody is there to take it.
    """

    pieces: AsyncIterator[bytes]
    media_type: str
    headers: Mapping[str, str]
    close: Callable[[], Awaitable[None]]


Handler = Callable[[Call[Any, Any]], Awaitable[Answer | Lines | Document]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path.

    Attributes:
        answers: what each status of success holds, and what it means.
        query, body: structs; `None`: no parameters, no body.
        errors: codes beyond those every endpoint may answer.
        example: a body as the documentation shows it.
        media_type: of an answer that is no error.
        forms: media types among which the client chooses, where it may.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, tuple[Any, str]]
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    errors: tuple[str, ...] = ()
    example: Any = None
    media_type: str = JSON
    forms: tuple[str, ...] = ()

    async def serve(self, request: Request) -> Response:
        """Authenticate, decode, handle, encode.

        Raises:
            ApiError, DomainError.
        """
        context: ApiContext = request.app.state.context
        principal = context.authenticator.authenticate(request)
        query = decode_query(request.query_params.multi_items(), self.query or _Nothing)
        body = await self._body(request, context.limits.body_bytes)
        state = request.state
        answer = await self.handler(
            Call(
                context,
                principal,
                request.path_params,
                query,
                body,
                state.correlation_id,
                state.trace,
                request.headers.get("accept", ""),
                partial(_gone, request),
            )
        )
        if isinstance(answer, Document):
            return _Closing(answer)
        if isinstance(answer, Lines):
            return StreamingResponse(answer.lines, media_type=self.media_type)
        return Response(msgspec.json.encode(answer.content), answer.status, answer.headers, media_type=JSON)

    async def _body(self, request: Request, max_bytes: int) -> Any:
        if self.body is None:
            raw = await read_body(request, max_bytes)
            return decode(raw, _Nothing) if raw else None
        content_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if content_type != JSON and not content_type.endswith("+json"):
            raise UnsupportedMediaType("a body is expected as application/json")
        return decode(await read_body(request, max_bytes), self.body)


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """A path for those who run Riverrun: GET, without a token, whatever its query.

    Attributes:
        answers: as an `Endpoint`'s; a struct is JSON, `str` plain text.
    """

    path: str
    respond: Callable[[ApiContext], Awaitable[Response]]
    summary: str
    answers: Mapping[int, tuple[Any, str]]
    method: Literal["GET"] = "GET"

    async def serve(self, request: Request) -> Response:
        """Answer. The body of the request, if there is one, is not read."""
        return await self.respond(request.app.state.context)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Closing(StreamingResponse):
    """A document that is closed whatever becomes of the request, also before its first piece."""

    def __init__(self, document: Document) -> None:
        super().__init__(document.pieces, headers=document.headers, media_type=document.media_type)
        self._close = document.close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint without parameters, or without a body, takes."""


class Path:
    """The methods of one path, as an ASGI application."""

    def __init__(self, endpoints: Sequence[Endpoint | OpenEndpoint]) -> None:
        self.path = endpoints[0].path
        self._by_method = {endpoint.method: endpoint for endpoint in endpoints}
        self._allowed = ", ".join(sorted(self._by_method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TEMPLATE] = self.path
        endpoint = self._by_method.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if endpoint is None:
            raise MethodNotAllowed(self._allowed)
        response = await endpoint.serve(Request(scope, receive))
        await response(scope, receive, send)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, however it is sent; what it declares itself to be is not believed.

    Raises:
        TooLarge: over `max_bytes`.
    """
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes <= max_bytes:
            chunks.append(chunk)
        elif size_bytes > max_bytes + DISCARDED_MAX_BYTES:
            break
    if size_bytes > max_bytes:
        raise TooLarge(f"a request body has at most {max_bytes:,} bytes")
    return b"".join(chunks)
