"""ClickHouse in this process (chDB), through clickhouse-connect: the archive, and the cold history.

chDB is synchronous and one directory belongs to one process, so one thread owns the client for its whole life.
Importing and opening it costs about 1.3 s and 400 MB: `open` runs behind the start of everything else.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import structlog

from streams.ports import LogUnavailable

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name String COMMENT 'File name of a migration in migrations/clickhouse that was applied',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When'
)
ENGINE = MergeTree ORDER BY name
"""

log = structlog.get_logger("riverrun.embedded")


class ClickHouse:
    """A ClickHouse database behind a URL: `chdb:///dir` in this process. Calls run one at a time, in order."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse")
        self._client: Any = None  # clickhouse-connect's client; importing its type would import chDB
        self._opening: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is open and its schema is up to date."""
        opening = self._opening
        return opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None

    def open(self) -> None:
        """Begin to open the database and to migrate its schema, without waiting. Idempotent."""
        if self._opening is None:
            loop = asyncio.get_running_loop()
            self._opening = loop.run_in_executor(self._thread, self._open)
            self._opening.add_done_callback(_tell_failure)

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            clickhouse_connect.driver.exceptions.Error: it cannot be opened or migrated.
        """
        self.open()
        assert self._opening is not None
        await asyncio.shield(self._opening)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """The rows a statement answers with; `{name:Type}` in it is a parameter.

        Raises:
            LogUnavailable: there is no ClickHouse at the URL, or it does not answer.
            clickhouse_connect.driver.exceptions.Error: ClickHouse refused it.
        """
        from clickhouse_connect.driver.exceptions import OperationalError

        loop = asyncio.get_running_loop()
        try:
            await self.ready()
            return await loop.run_in_executor(self._thread, self._query, sql, parameters)
        except OperationalError as error:
            raise LogUnavailable(f"ClickHouse: {' '.join(str(error).split())}") from error

    async def close(self) -> None:
        """Finish what runs and close the database. Idempotent."""
        loop = asyncio.get_running_loop()
        if self._opening is not None:
            await asyncio.wait([self._opening])
            await loop.run_in_executor(self._thread, self._close)
            self._opening = None
        self._thread.shutdown(wait=False)

    def _open(self) -> None:
        import clickhouse_connect

        self._client = clickhouse_connect.get_client(dsn=self._url)
        self._client.command(LEDGER)
        applied = {row[0] for row in self._client.query("SELECT name FROM schema_migrations").result_rows}
        folder = files("migrations") / "clickhouse"
        for file in sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name):
            if file.name not in applied:
                for statement in file.read_text(encoding="utf-8").split(";\n"):
                    if statement.strip():
                        self._client.command(statement)
                self._client.insert("schema_migrations", [[file.name]], column_names=["name"])

    def _query(self, sql: str, parameters: Mapping[str, Any] | None) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._client.query(sql, parameters=dict(parameters or {})).result_rows
        return rows

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _tell_failure(opening: asyncio.Future[None]) -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        log.error(f"clickhouse did not open: {error}", server="clickhouse")
