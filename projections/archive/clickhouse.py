"""ClickHouse behind a URL, through clickhouse-connect: a server's `http://…`, or `chdb:///dir` in this process.

clickhouse-connect is synchronous, so calls run in threads, each with a client of its own. One thread inserts, so that
inserts happen in the order they were asked for; a few read. One chDB directory belongs to one process; importing and
opening it costs about 1.3 s and 400 MB, so `open` runs behind the start of everything else.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from streams.ports import ArchiveUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name String COMMENT 'File name of a migration in migrations/clickhouse that was applied',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When'
)
ENGINE = MergeTree ORDER BY name
"""
READERS: Final = 3  # statements that read at once
CONNECT_S: Final = 3
ANSWER_S: Final = 60

# Of the server's own error codes those that say nothing about the statement: it may be tried again. Of time, memory,
# connections, disk; and a server that is shutting down (ClickHouse, src/Common/ErrorCodes.cpp).
_PASSING: Final = frozenset({159, 202, 209, 210, 236, 241, 243, 252, 394, 439})

# What makes inserting the same block again change nothing, and a returned insert one that is kept: see docs/archive.md.
# A batch of old events may touch any number of months.
_INSERT: Final[Mapping[str, Any]] = {"async_insert": 0, "insert_deduplicate": 1, "max_partitions_per_insert_block": 0}

T = TypeVar("T")
Rows = Sequence[Sequence[Any]]

log = structlog.get_logger(__name__)


class ArchiveRefused(Exception):
    """ClickHouse refuses a statement. The same again is refused again."""


class ClickHouse:
    """One database. All methods but `open` and `close` wait for it to be open, and raise `ArchiveUnavailable` when
    ClickHouse does not answer (now), and `ArchiveRefused` when it does not accept the statement.

    A database that could not be opened is tried again by the next call.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse")
        self._reading = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="clickhouse-read")
        self._writer: Any = None  # clickhouse-connect's clients; importing their type would import chDB
        self._idle: list[Any] = []  # readers that nobody uses now
        self._readers = asyncio.Semaphore(READERS)
        self._opening: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is open and its schema is up to date."""
        opening = self._opening
        return opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None

    def open(self) -> None:
        """Begin to open the database and to migrate its schema, without waiting. Idempotent."""
        opening = self._opening
        if opening is not None and not (opening.done() and opening.exception() is not None):
            return
        self._opening = asyncio.get_running_loop().run_in_executor(self._writing, self._open)
        self._opening.add_done_callback(_tell_failure)

    async def ready(self) -> None:
        """Wait until it is open."""
        self.open()
        assert self._opening is not None
        await asyncio.shield(self._opening)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None, *, binary: Sequence[str] = ()) -> Rows:
        """The rows a statement answers with.

        Args:
            parameters: what `{name:Type}` in the statement stands for.
            binary: columns of text that are wanted as bytes.
        """
        return await self._read(lambda client: _rows(client, sql, parameters, binary))

    async def stream(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, binary: Sequence[str] = ()
    ) -> AsyncGenerator[Rows, None]:
        """As `query`, in blocks, as they come: for more rows than are to be in memory."""
        await self.ready()
        loop = asyncio.get_running_loop()
        async with self._readers:
            client = await loop.run_in_executor(self._reading, self._take)
            blocks: Any = None
            try:
                blocks = await loop.run_in_executor(self._reading, _open_stream, client, sql, parameters, binary)
                while (block := await loop.run_in_executor(self._reading, _next_block, blocks)) is not None:
                    yield block
            finally:
                if blocks is not None:
                    await asyncio.shield(loop.run_in_executor(self._reading, blocks.__exit__, None, None, None))
                self._idle.append(client)

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that changes something."""
        await self._write(lambda client: client.command(sql, parameters=parameters))

    async def insert(self, table: str, columns: Mapping[str, Sequence[Any]], *, token: str) -> None:
        """Insert rows, given by columns of equal length. When it returns, they are on disk.

        Args:
            token: names the block: inserted again under the same token it changes nothing, as long as the token is
                among the newest thousand of a partition of the table. The rows are to be the same again.
        """
        settings = {**_INSERT, "insert_deduplication_token": token}
        await self._write(
            lambda client: client.insert(
                table,
                list(columns.values()),
                column_names=list(columns),
                column_oriented=True,
                settings=settings,
            )
        )

    async def close(self) -> None:
        """Finish what runs and close the database. Idempotent."""
        loop = asyncio.get_running_loop()
        if self._opening is not None:
            await asyncio.wait([self._opening])
            for _ in range(READERS):
                await self._readers.acquire()
            await loop.run_in_executor(self._writing, self._close)
            self._opening = None
            for _ in range(READERS):
                self._readers.release()
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    async def _read(self, work: Callable[[Any], T]) -> T:
        await self.ready()

        def run() -> T:
            client = self._take()
            try:
                with _errors_told():
                    return work(client)
            finally:
                self._idle.append(client)

        async with self._readers:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._reading, run))

    async def _write(self, work: Callable[[Any], Any]) -> None:
        await self.ready()

        def run() -> None:
            with _errors_told():
                work(self._writer)

        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writing, run))

    def _open(self) -> None:
        with _errors_told():
            self._writer = self._connect()
            _migrate(self._writer)

    def _take(self) -> Any:
        """A client to read with. There are as many as are used at once."""
        with _errors_told():
            return self._idle.pop() if self._idle else self._connect()

    def _connect(self) -> Any:
        import clickhouse_connect

        if self._url.startswith("chdb:"):
            return clickhouse_connect.get_client(dsn=self._url, tz_mode="aware")
        return clickhouse_connect.get_client(
            dsn=self._url,
            tz_mode="aware",
            connect_timeout=CONNECT_S,
            send_receive_timeout=ANSWER_S,
            autogenerate_session_id=False,  # statements of one session may not overlap
        )

    def _close(self) -> None:
        for client in (*self._idle, self._writer):
            if client is not None:
                client.close()
        self._idle.clear()
        self._writer = None


def _rows(client: Any, sql: str, parameters: Mapping[str, Any] | None, binary: Sequence[str]) -> Rows:
    rows: Rows = client.query(sql, parameters=parameters, column_formats=dict.fromkeys(binary, "bytes")).result_rows
    return rows


def _open_stream(client: Any, sql: str, parameters: Mapping[str, Any] | None, binary: Sequence[str]) -> Any:
    with _errors_told():
        stream = client.query_row_block_stream(
            sql, parameters=parameters, column_formats=dict.fromkeys(binary, "bytes")
        )
        stream.__enter__()
        return stream


def _next_block(stream: Any) -> Rows | None:
    with _errors_told():
        block: Rows | None = next(stream, None)
        return block


def _migrate(client: Any) -> None:
    client.command(LEDGER)
    applied = {row[0] for row in client.query("SELECT name FROM schema_migrations").result_rows}
    folder = files("migrations") / "clickhouse"
    for file in sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name):
        if file.name not in applied:
            for statement in file.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    client.command(statement)
            client.insert("schema_migrations", [[file.name]], column_names=["name"])


@contextmanager
def _errors_told() -> "Iterator[None]":
    """Errors of clickhouse-connect and of the network as those of this module."""
    from clickhouse_connect.driver.exceptions import ClickHouseError, InterfaceError, OperationalError

    try:
        yield
    except ClickHouseError as error:
        text = " ".join(str(error).split())
        code = getattr(error, "code", None)  # the server's; without one it is the connection
        passing = code in _PASSING if code else isinstance(error, OperationalError | InterfaceError)
        raise (ArchiveUnavailable if passing else ArchiveRefused)(text) from error
    except OSError as error:
        raise ArchiveUnavailable(str(error)) from error


def _tell_failure(opening: "asyncio.Future[None]") -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        log.error("ClickHouse did not open", error=str(error))
