"""`riverrun sql`: ask the archive, once or in a conversation."""

import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.analysis.asking import Asking, Rows
from runtime.cli import fail
from runtime.cli.target import DEFAULT_DATA_DIR, resolve_target
from runtime.client.errors import ApiError, ClientError
from runtime.terminal import printable

HISTORY: Final = "sql.history"  # in the data directory
HISTORY_MAX: Final = 1000  # lines
PROMPT: Final = "riverrun> "
CONTINUED: Final = "       -> "
HELP: Final = """\
A statement ends with ; and may have several lines. Only SELECT, WITH and EXPLAIN are answered.
\\d          the tables
\\d TABLE    its columns
\\q          leave, as Ctrl-D; Ctrl-C ends a statement
"""
TABLES: Final = """
    SELECT name AS table, total_rows AS rows, comment FROM system.tables
    WHERE database = currentDatabase() ORDER BY name"""
COLUMNS: Final = """
    SELECT name AS column, type, comment FROM system.columns
    WHERE database = currentDatabase() AND table = {table:String} ORDER BY position"""


class Form(StrEnum):
    """Forms of an answer."""

    table = "table"
    csv = "csv"
    ndjson = "ndjson"
    parquet = "parquet"
    arrow = "arrow"


BINARY: Final = frozenset({Form.parquet, Form.arrow})


def sql(
    statement: Annotated[
        str | None, typer.Argument(help="The question; without it, stdin's, or a conversation on a terminal.")
    ] = None,
    *,
    form: Annotated[Form, typer.Option("--format", help="Of the answer.")] = Form.table,
    output: Annotated[Path | None, typer.Option(help="Write the answer to this file.")] = None,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Ask the archive in ClickHouse's SQL: read only, within the server's limits. Its tables: `riverrun sql`, then \\d.

    Exit status: 0 answered, 1 the statement is refused, 2 the server does not answer.
    """
    target = resolve_target(url, data_dir)
    asking = Asking(target.url, target.jwt_secret)
    if statement is None and sys.stdin.isatty():
        if output is not None or form in BINARY:
            fail("a conversation is answered on the terminal; --output and --format parquet need a statement")
        _converse(asking, form, (data_dir or DEFAULT_DATA_DIR) / HISTORY)
        return
    if output is None and form in BINARY and sys.stdout.isatty():
        fail(f"--format {form.value} is not for a terminal: give --output FILE")
    try:
        if output is not None:
            _to_file(asking, sys.stdin.read() if statement is None else statement, form, output)
        else:
            _answer(asking, sys.stdin.read() if statement is None else statement, form)
    except ApiError as error:
        sys.stderr.write(f"riverrun: {printable(error.detail)}\n")
        raise typer.Exit(1) from None
    except ClientError as error:
        fail(str(error))


def _answer(asking: Asking, statement: str, form: Form, parameters: dict[str, str] | None = None) -> None:
    if form is Form.table:
        _print(asking.rows(statement, parameters))
        return
    with asking.answered(statement, form.value, parameters) as pieces:
        _write(pieces)


def _write(pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _to_file(asking: Asking, statement: str, form: Form, output: Path) -> None:
    """All of the answer, or the file as it was."""
    draft = output.with_name(f".{output.name}.part")
    try:
        with asking.answered(statement, form.value) as pieces, draft.open("wb") as file:
            file.writelines(pieces)
        draft.replace(output)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")
    finally:
        draft.unlink(missing_ok=True)


def _print(answer: Rows) -> None:
    table = Table(show_edge=False, pad_edge=False)
    for name, type_ in zip(answer.names, answer.types, strict=True):
        is_number = type_.startswith(("UInt", "Int", "Float", "Decimal"))
        table.add_column(Text(printable(name)), justify="right" if is_number else "left", overflow="fold")
    for row in answer.rows:
        table.add_row(*(Text("" if value is None else printable(str(value))) for value in row))
    console = Console()
    if answer.names:
        console.print(table)
    console.print(f"{len(answer.rows):,} row{'' if len(answer.rows) == 1 else 's'}", highlight=False)


def _converse(asking: Asking, form: Form, history: Path) -> None:
    import readline  # noqa: F401  # makes `input` edit lines, which only a conversation needs

    _remember(history)
    sys.stdout.write("\\? tells what there is.\n")
    lines: list[str] = []
    while True:
        try:
            line = input(CONTINUED if lines else PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            lines.clear()
            continue
        if not lines and line.strip() == "\\q":
            return
        if not lines and line.strip().startswith("\\"):
            _asked(asking, Form.table, *_command(line.split()))
        elif line.strip() or lines:
            lines.append(line)
            if line.rstrip().endswith(";"):
                _asked(asking, form, "\n".join(lines))
                lines.clear()


def _command(words: list[str]) -> tuple[str, dict[str, str]]:
    if words == ["\\d"]:
        return TABLES, {}
    if words[0] == "\\d" and len(words) == 2:
        return COLUMNS, {"table": words[1]}
    sys.stdout.write(HELP)
    return "", {}


def _asked(asking: Asking, form: Form, statement: str, parameters: dict[str, str] | None = None) -> None:
    """A question of a conversation, which goes on whatever becomes of it."""
    if not statement:
        return
    try:
        _answer(asking, statement, form, parameters)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    except ApiError as error:
        sys.stdout.write(printable(error.detail) + "\n")
    except ClientError as error:
        sys.stdout.write(f"{error}\n")


def _remember(path: Path) -> None:
    """Keep the lines for the next conversation, where there is a data directory; for its owner only."""
    import atexit
    import readline

    if not path.parent.is_dir():
        return
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        readline.read_history_file(path)
    except OSError:
        return  # a history is nothing to fail for
    readline.set_history_length(HISTORY_MAX)
    atexit.register(readline.write_history_file, path)
