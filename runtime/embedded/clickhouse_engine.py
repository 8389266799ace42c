"""chDB, the engine of ClickHouse, as the embedded server uses it: one statement at a time on a handle of its own.

A handle costs 0.2 ms, so each statement has a fresh one, with its database and settings: nothing of a statement is left
for the next. Everything here blocks, and is called in threads; chDB gives the interpreter free while it works.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import chdb

from projections.archive.parameters import escaped

READONLY: Final = 164  # this and the other codes: ClickHouse's own (src/Common/ErrorCodes.cpp)
UNKNOWN_SETTING: Final = 115

# Whose blocks make a whole when they are joined. What is asked in another format comes as one piece.
STREAMABLE: Final = frozenset({"Native", "TabSeparated", "TSV", "CSV", "JSONEachRow", "RowBinary"})

_RESTRICTED: Final = {
    "result_overflow_mode": "throw",  # an answer is whole, or an error
    # Text of few different values is small until Parquet writes it out, a group at a time, with memory that no limit
    # of a statement counts: 8 GB were seen. In groups of a thousand rows it is counted.
    "output_format_parquet_row_group_size": "1000",
    "output_format_parquet_row_group_size_bytes": "1000000",
    "readonly": "1",
}

# What the door sends to any ClickHouse: here it is so whatever is said.
_GIVEN_ANYWAY: Final = frozenset({"readonly", "result_overflow_mode"})
_HARMLESS: Final = frozenset({"output_format_json_quote_64bit_integers"})

_CODE: Final = re.compile(r"Code: (\d+)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class StatementFailed(Exception):
    """The engine refused a statement, or could not finish it. `code` is ClickHouse's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, error: Exception) -> "StatementFailed":
        """What chDB says, without what stands before ClickHouse's own words."""
        said = str(error)
        found = _CODE.search(said)
        return cls(int(found[1]), said[found.start() :].strip()) if found else cls(1002, said.strip())


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be run.

    Attributes:
        format: of the answer, where the statement names none; with `rows`, of those.
        rows: a file with the rows of an INSERT.
        mark: by which it can be found among those that run.
    """

    sql: str
    format: str = "TabSeparated"
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    rows: Path | None = None
    mark: str = field(default_factory=lambda: token_hex(8))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned, and what it took."""

    body: bytes
    rows: int
    size_bytes: int
    elapsed_ns: int


class Engine:
    """The chDB of one directory. A process has one."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory)
        self._kept = chdb.connect(self._path)  # as long as there is one handle, the engine stays open

    def close(self) -> None:
        """Close the directory; no statement may run."""
        self._kept.close()

    def run(self, statement: Statement) -> Answer:
        """Run a statement to its end.

        Raises:
            StatementFailed.
        """
        sql = statement.sql
        if statement.rows is not None:
            sql = f"{sql} FROM INFILE {quoted(str(statement.rows))} FORMAT {statement.format}"
        with self._handle(statement) as handle, _told():
            format_ = "TabSeparated" if statement.rows is not None else statement.format
            result = handle.query(sql, format_, params=dict(statement.parameters))
            elapsed_ns = int(result.elapsed() * 1e9)
            return Answer(bytes(result.bytes() or b""), result.rows_read(), result.bytes_read(), elapsed_ns)

    def rows(self, sql: str, /, **parameters: str) -> list[str]:
        """The lines a short statement answers with, as they are."""
        given = {name: escaped(value) for name, value in parameters.items()}
        return self.run(Statement(sql, "TSVRaw", parameters=given)).body.decode().splitlines()

    def stream(self, statement: Statement) -> "Stream":
        """Begin a statement whose answer is taken piece by piece."""
        return Stream(statement, self._handle, self.kill)

    def kill(self, mark: str) -> None:
        """Ask a statement that runs to end; it fails with 394. One that does not run any more is none to end."""
        with suppress(StatementFailed):
            self.run(Statement(f"KILL QUERY WHERE Settings['log_comment'] = {quoted(mark)} ASYNC"))

    @contextmanager
    def _handle(self, statement: Statement) -> Iterator[Any]:
        handle = chdb.connect(self._path)
        try:
            with _told():
                if statement.database:
                    handle.query(f"USE {identifier(statement.database)}")
                settings = {"log_comment": statement.mark, **statement.settings}
                for name in settings:
                    if not _NAME.fullmatch(name):
                        raise StatementFailed(UNKNOWN_SETTING, f"Code: {UNKNOWN_SETTING}. {name!r} is no setting")
                handle.query("SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items()))
            yield handle
        finally:
            handle.close()


class Stream:
    """The pieces of an answer. `take` and `close` may be called from any thread."""

    def __init__(self, statement: Statement, handle: Callable[[Statement], Any], kill: Callable[[str], None]) -> None:
        self._mark = statement.mark
        self._kill = kill
        self._lock = threading.Lock()
        self._pieces = self._begun(statement, handle)

    def take(self) -> bytes | None:
        """The next piece, `None` at the end.

        Raises:
            StatementFailed.
        """
        with self._lock:
            return next(self._pieces, None)

    def close(self) -> None:
        """End it, wherever it is. Idempotent."""
        if self._lock.locked():
            self._kill(self._mark)
        with self._lock:
            self._pieces.close()

    @staticmethod
    def _begun(statement: Statement, handle_of: Callable[[Statement], Any]) -> Any:  # a generator, which is closed
        with handle_of(statement) as handle, _told():
            result = handle.send_query(statement.sql, statement.format, params=dict(statement.parameters))
            try:
                for piece in result:
                    if body := bytes(piece.bytes() or b""):
                        yield body
            finally:
                result.close()


def restricted(statement: Statement, limits: Mapping[str, int]) -> Statement:
    """A statement under limits that it cannot lift: what it asks for itself counts where it is less. Read only.

    Raises:
        StatementFailed: it wants to change another setting.
    """
    settings = {name: str(limit) for name, limit in limits.items()}
    for name, value in statement.settings.items():
        if name in limits and value.isdecimal():
            settings[name] = str(min(limits[name], int(value) or limits[name]))
        elif name in _HARMLESS:
            settings[name] = value
        elif name not in _GIVEN_ANYWAY:
            raise StatementFailed(READONLY, f"Code: {READONLY}. Cannot modify {name!r} setting in readonly mode")
    return replace(statement, settings={**settings, **_RESTRICTED})


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, chdb.ChdbError) as error:  # which of them depends on the call
        raise StatementFailed.of(error) from error
