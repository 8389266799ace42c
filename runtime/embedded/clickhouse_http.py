"""The embedded ClickHouse server: chDB behind ClickHouse's HTTP interface, on loopback, as a program.

    python -m runtime.embedded.clickhouse_http PORT DIRECTORY LIMITS

Enough of the interface for clickhouse-connect: statements as body or `query`, rows of an INSERT as the body's rest,
parameters, settings, formats, codes of errors. Not there: sessions (each request stands alone), external tables,
compressed answers. Two users, whose passwords are in files of the directory: `riverrun` may everything, `analyst` asks
what `clickhouse_admission` lets in, under the limits of the command line (settings of ClickHouse, as JSON).
"""

import asyncio
import hmac
import json
import re
import resource
import sys
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any, Final, TypeVar

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.server import bind
from runtime.embedded.clickhouse_admission import SYNTAX_ERROR, admitted
from runtime.embedded.clickhouse_engine import (
    STREAMABLE,
    Answer,
    Engine,
    Statement,
    StatementFailed,
    Stream,
    restricted,
)
from runtime.secret_file import load_or_create_secret

DATABASE: Final = "riverrun"
OWNER: Final = "riverrun"
ANALYST: Final = "analyst"

AT_ONCE: Final = {OWNER: 8, ANALYST: 2}  # statements of a user; analysts are to leave the archiver something
WAITING_MAX: Final = 64  # statements of a user that wait for their turn; one more is refused
STATEMENT_MAX_BYTES: Final = 1 << 20
ROWS_MAX_BYTES: Final = 1 << 30  # of one INSERT, on disk
SHUTDOWN_S: Final = 2
KILL_EVERY_S: Final = 0.1
# Of the process; it begins with a twentieth. chDB counts the memory of statements, but not all of it: what it does not
# count ends here in an error, and not in the whole machine's memory.
MEMORY_MAX_BYTES: Final = 6 << 30

BAD_ARGUMENTS, TOO_MANY, AUTHENTICATION_FAILED, TOO_LARGE = 36, 202, 516, 161
STATUSES: Final = {
    AUTHENTICATION_FAILED: 401,
    497: 403,
    164: 403,
    60: 404,
    TOO_LARGE: 413,
    TOO_MANY: 503,
    62: 400,
    36: 400,
}

# Parameters of the interface, which are no settings.
_INTERFACE: Final = frozenset(
    {"query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id", "quota_key"}
    | {"wait_end_of_query", "buffer_size", "client_protocol_version", "compress", "decompress", "role"}
    | {"enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms"}
    | {"cancel_http_readonly_queries_on_client_close"}
)
_INSERT: Final = re.compile(rb"\s*(INSERT\s+INTO\s[^']*?)\s+FORMAT\s+(\w+)[ \t;]*(?:\r?\n|$)", re.IGNORECASE)
_FORMAT: Final = re.compile(r"\sFORMAT\s+(\w+)[\s;]*$", re.IGNORECASE)
_ANSWERS: Final = re.compile(
    r"[\s(]*(SELECT|WITH|FROM|SHOW|DESC|DESCRIBE|EXPLAIN|EXISTS|CHECK|VALUES)\b", re.IGNORECASE
)
_STREAMS: Final = re.compile(r"[\s(]*(SELECT|WITH|FROM)\b", re.IGNORECASE)
_INFLATE: Final[Mapping[str, Callable[[], Any]]] = {
    "lz4": lambda: import_module("lz4.frame").LZ4FrameDecompressor(),  # there if clickhouse-connect sends it
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    "deflate": zlib.decompressobj,
}

T = TypeVar("T")


class Server:
    """The ASGI application."""

    def __init__(self, engine: Engine, directory: Path, limits: Mapping[str, int]) -> None:
        self._engine = engine
        self._limits = limits
        self._passwords = {user: load_or_create_secret(directory / f"{user}.password") for user in AT_ONCE}
        self._uploads = directory / "uploads"
        self._uploads.mkdir(mode=0o700, exist_ok=True)
        for left in self._uploads.iterdir():  # by a process that was killed
            left.unlink()
        self._threads = {user: ThreadPoolExecutor(count, f"statement-{user}") for user, count in AT_ONCE.items()}
        self._asked = dict.fromkeys(AT_ONCE, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._response(request)
        except StatementFailed as error:
            response = _failure(error)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        if request.url.path == "/ping":
            return Response("Ok.\n", media_type="text/plain")
        user = self._user(request)
        if self._asked[user] >= AT_ONCE[user] + WAITING_MAX:
            raise StatementFailed(TOO_MANY, f"Code: {TOO_MANY}. Too many simultaneous queries")
        self._asked[user] += 1
        try:
            return await self._answered(request, user)
        finally:
            self._asked[user] -= 1

    def _user(self, request: Request) -> str:
        user, password = request.headers.get("x-clickhouse-user", ""), request.headers.get("x-clickhouse-key", "")
        kind, _, credentials = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                user, _, password = b64decode(credentials, validate=True).decode().partition(":")
            except ValueError:
                user = ""
        expected = self._passwords.get(user, "")
        if not hmac.compare_digest(password.encode(), expected.encode()) or not expected:
            why = "password is incorrect, or there is no user with such name"
            raise StatementFailed(AUTHENTICATION_FAILED, f"Code: {AUTHENTICATION_FAILED}. Authentication failed: {why}")
        return user

    async def _answered(self, request: Request, user: str) -> Response:
        statement = await self._statement(request, user)
        try:
            if user == ANALYST:
                statement = restricted(statement, self._limits)
                statement = await self._in_thread(user, admitted, self._engine, statement)
            asked = _FORMAT.search(statement.sql)
            format_ = asked[1] if asked else statement.format
            whole = request.query_params.get("wait_end_of_query") == "1" or format_ not in STREAMABLE
            headers = {"X-ClickHouse-Query-Id": statement.mark, "X-ClickHouse-Timezone": "UTC"}
            if statement.rows is None and _ANSWERS.match(statement.sql):
                headers["X-ClickHouse-Format"] = format_
                if not whole and _STREAMS.match(statement.sql):
                    return await self._streamed(request, user, statement, headers)
            answer = await self._watched(request, statement.mark, self._in_thread(user, self._engine.run, statement))
            headers["X-ClickHouse-Summary"] = _summary(answer, statement.rows is not None)
            return Response(answer.body, headers=headers, media_type="application/octet-stream")
        finally:
            if statement.rows is not None:
                statement.rows.unlink()

    async def _watched(self, request: Request, mark: str, work: Awaitable[T]) -> T:
        """Await what a statement does; it is ended when the client is gone."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        while not working.done():  # one that waits for its turn cannot be ended yet
            await asyncio.to_thread(self._engine.kill, mark)
            await asyncio.wait({working}, timeout=KILL_EVERY_S)
        return await working

    async def _streamed(self, request: Request, user: str, statement: Statement, headers: dict[str, str]) -> Response:
        stream = self._engine.stream(statement)
        try:
            first = await self._watched(request, statement.mark, self._in_thread(user, stream.take))
        except BaseException:
            self._threads[user].submit(stream.close)
            raise
        tag = token_hex(8)
        pieces = self._pieces(user, stream, first, tag)
        headers["X-ClickHouse-Exception-Tag"] = tag
        return StreamingResponse(pieces, headers=headers, media_type="application/octet-stream")

    async def _pieces(self, user: str, stream: Stream, piece: bytes | None, tag: str) -> AsyncIterator[bytes]:
        try:
            while piece is not None:
                yield piece
                piece = await self._in_thread(user, stream.take)
        except StatementFailed as error:  # the status is sent; this is how ClickHouse says it behind what it has sent
            said = str(error).encode()
            yield b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (
                tag.encode(),
                said,
                len(said) + 1,
                tag.encode(),
            )
        finally:
            # Not awaited: where the client is gone, nothing can be awaited here any more.
            asyncio.get_running_loop().run_in_executor(None, stream.close)

    async def _in_thread(self, user: str, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads[user], work, *arguments)

    async def _statement(self, request: Request, user: str) -> Statement:
        """What a request asks for. The rows of an owner's INSERT go to a file."""
        given = request.query_params
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise StatementFailed(BAD_ARGUMENTS, f"Code: {BAD_ARGUMENTS}. Forms are not taken here")
        body = _body(request)
        head = given.get("query", "").encode()
        if head:
            head += b"\n"
        async for piece in body:
            head += piece
            if len(head) > STATEMENT_MAX_BYTES:
                break
        statement = Statement(
            "",
            given.get("default_format") or request.headers.get("x-clickhouse-format", "TabSeparated"),
            given.get("database") or request.headers.get("x-clickhouse-database", DATABASE),
            {name: value for name, value in given.items() if name not in _INTERFACE and not name.startswith("param_")},
            {name[6:]: value for name, value in given.items() if name.startswith("param_")},
        )
        if user == OWNER and (insert := _INSERT.match(head)) and len(head) > insert.end():
            rows = await self._upload(head[insert.end() :], body)
            return replace(statement, sql=insert[1].decode(), format=insert[2].decode(), rows=rows)
        if len(head) > STATEMENT_MAX_BYTES:
            raise StatementFailed(TOO_LARGE, f"Code: {TOO_LARGE}. A statement has at most {STATEMENT_MAX_BYTES} bytes")
        if not head.strip():
            raise StatementFailed(SYNTAX_ERROR, f"Code: {SYNTAX_ERROR}. Syntax error: the statement is empty")
        return replace(statement, sql=head.decode(errors="replace"))

    async def _upload(self, begun: bytes, rest: AsyncIterator[bytes]) -> Path:
        with NamedTemporaryFile(dir=self._uploads, delete=False) as file:
            path = Path(file.name)
            try:
                file.write(begun)
                async for piece in rest:
                    file.write(piece)
                    if file.tell() > ROWS_MAX_BYTES:
                        raise StatementFailed(TOO_LARGE, f"Code: {TOO_LARGE}. At most {ROWS_MAX_BYTES} bytes at once")  # noqa: TRY301
            except BaseException:
                path.unlink()  # noqa: ASYNC240  # a moment
                raise
        return path


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body, in pieces, as it was before it was compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding == "identity":
        async for piece in request.stream():
            yield piece
        return
    if encoding not in _INFLATE:
        raise StatementFailed(BAD_ARGUMENTS, f"Code: {BAD_ARGUMENTS}. Content-Encoding {encoding!r} is not taken here")
    inflate = _INFLATE[encoding]()
    try:
        async for piece in request.stream():
            yield inflate.decompress(piece)
    except (zlib.error, RuntimeError) as error:
        raise StatementFailed(BAD_ARGUMENTS, f"Code: {BAD_ARGUMENTS}. The body is no {encoding}: {error}") from error


async def _gone(request: Request) -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _summary(answer: Answer, inserted: bool) -> str:
    kind = "written" if inserted else "read"
    figures = {f"{kind}_rows": answer.rows, f"{kind}_bytes": answer.size_bytes, "elapsed_ns": answer.elapsed_ns}
    return json.dumps({name: str(figure) for name, figure in figures.items()})


def _failure(error: StatementFailed) -> Response:
    status = STATUSES.get(error.code, 500)
    return Response(str(error) + "\n", status, {"X-ClickHouse-Exception-Code": str(error.code)}, "text/plain")


def main(port: int, directory: Path, limits: Mapping[str, int]) -> None:
    """Serve until SIGTERM."""
    try:
        listener = bind("127.0.0.1", port)
    except OSError as error:
        sys.exit(f"cannot listen on port {port}: {error.strerror}")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    engine = Engine(directory / "data")
    engine.run(Statement(f"CREATE DATABASE IF NOT EXISTS {DATABASE}"))
    application = Server(engine, directory, limits)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            lifespan="off",
            ws="none",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    server.run([listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
