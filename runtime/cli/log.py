"""`riverrun log`: the events of the log, readably: the newest ones, one of them whole, or those with a text."""

import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from domain.errors import Invalid
from domain.ids import check_user_id, parse_id
from runtime.cli import fail
from runtime.cli.target import Target, resolve_target
from runtime.cli.times import time_of
from runtime.cli.whole_log import run_plainly, whole_log
from runtime.events.entry import Entry
from runtime.events.naming import NamedBadly, named
from runtime.events.reading import Reading
from runtime.events.selection import Selection, known_types

NEWEST_MAX: Final = 100_000
TELL_S: Final = 2.0  # between two lines of progress
TELL_EVENTS: Final = 1_000  # the clock is looked at no more often

_Conversation = Annotated[str | None, typer.Option("--conversation", "-c", help="Events of this conversation.")]
_User = Annotated[str | None, typer.Option("--user", "-u", help="Events by, of or about this user.")]
_Types = Annotated[list[str] | None, typer.Option("--type", "-t", help="Of this type, 'member.*'; may be repeated.")]
_Since = Annotated[str | None, typer.Option(help="Decided since: 2h (ago), or a time, UTC without a zone.")]
_Until = Annotated[str | None, typer.Option(help="Decided until.")]
_Partition = Annotated[str | None, typer.Option(help="A partition's number, or its stream: CONV-3.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
_Url = Annotated[str | None, typer.Option(help="The server, http://host:port.")]
_DataDir = Annotated[Path | None, typer.Option(help="The data dir of a local server.")]

app = typer.Typer(help="Show events of the log.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Show events of the log, also those that are in the archive only. Read only; texts are shown."""


@app.command()
def tail(  # noqa: PLR0917  # each is an option
    conversation: _Conversation = None,
    user: _User = None,
    types: _Types = None,
    since: _Since = None,
    until: _Until = None,
    partition: _Partition = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, max=NEWEST_MAX, help="How many.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they are stored.")] = False,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Print the newest events, the oldest of them first, and with -f those to come, until Ctrl-C."""
    selection = _selection(conversation, user, types, since, until, partition)

    async def print_them(reading: Reading, progress: "_Progress") -> None:
        newest = await reading.newest(count)
        progress.end()
        _print(newest, as_json)
        if follow:
            async for entries in reading.follow():
                _print(entries, as_json)

    _read(resolve_target(url, data_dir), selection, print_them)


@app.command()
def grep(  # noqa: PLR0917  # each is an option
    pattern: Annotated[str, typer.Argument(help="A regular expression, as Python's `re` takes it.")],
    conversation: _Conversation = None,
    user: _User = None,
    since: _Since = None,
    until: _Until = None,
    partition: _Partition = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Letters' case aside.")] = False,
    fixed: Annotated[bool, typer.Option("--fixed", "-F", help="The pattern is a text, not an expression.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-m", min=1, help="Stop after so many.")] = 1_000,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Print the messages whose text has the pattern, the oldest first. It reads the whole log, or what is selected."""
    try:
        text = re.compile(re.escape(pattern) if fixed else pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        fail(f"{pattern!r} is no regular expression: {error}")
    selection = replace(_selection(conversation, user, None, since, until, partition), text=text)

    async def print_them(reading: Reading, progress: "_Progress") -> None:
        async for number, entry in _numbered(reading.all()):
            _print([entry], as_json)
            progress.found = number
            if number == limit:
                progress.end()
                sys.stderr.write(f"stopped after {limit:,}; --limit asks for more, --since goes on\n")
                return
        progress.end()

    _read(resolve_target(url, data_dir), selection, print_them)


@app.command()
def show(
    event: Annotated[
        str,
        typer.Argument(
            metavar="EVENT",
            help="A place as CONV-0:17, a message's id, CONVERSATION_ID:SEQ, or with --versions a conversation's id.",
        ),
    ],
    *,
    versions: Annotated[str | None, typer.Option(help="Events of the conversation: 7, or 7-12.")] = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Print events whole: all headers, all fields.

    Exit status: 0 found, 2 no such event, or the log does not answer.
    """
    target = resolve_target(url, data_dir)

    async def print_it() -> None:
        async with whole_log(target, "log") as log:
            async for number, entry in _numbered(named(log, event, versions, partitions=target.partitions)):
                if as_json:
                    _print([entry], as_json)
                else:
                    sys.stdout.write(("\n" if number > 1 else "") + entry.whole() + "\n")

    try:
        run_plainly(print_it)
    except NamedBadly as error:
        fail(str(error))


def _selection(  # noqa: PLR0917
    conversation: str | None,
    user: str | None,
    types: list[str] | None,
    since: str | None,
    until: str | None,
    partition: str | None,
) -> Selection:
    try:
        return Selection(
            None if conversation is None else parse_id(conversation, field="--conversation"),
            None if user is None else check_user_id(user, field="--user"),
            tuple(types or ()),
            None if since is None else time_of(since, "--since"),
            None if until is None else time_of(until, "--until"),
            partition,
        )
    except Invalid as error:
        fail(f"{error.field}: {error.detail}")


def _read(
    target: Target, selection: Selection, work: Callable[[Reading, "_Progress"], Coroutine[Any, Any, None]]
) -> None:
    sources = selection.sources(target.partitions)
    if not sources:
        fail(
            f"there can be no such event: partitions are 0 to {target.partitions - 1}, a conversation and a user are "
            f"in one of them, and types are {', '.join(known_types())}"
        )

    async def read() -> None:
        progress = _Progress()
        async with whole_log(target, "log") as log:
            try:
                await work(Reading(log, selection, sources, progress.scanned), progress)
            finally:
                progress.end()

    run_plainly(read)


class _Progress:
    """Lines on stderr, for as long as nothing else is to be seen for seconds.

    Attributes:
        found: how many events were printed.
    """

    def __init__(self) -> None:
        self.found = 0
        self._events = 0
        self._told_s = time.monotonic()
        self._ended = False

    def scanned(self, stream: str, sequence: int) -> None:
        """Another event was looked at."""
        self._events += 1
        if self._ended or self._events % TELL_EVENTS or time.monotonic() - self._told_s < TELL_S:
            return
        self._told_s = time.monotonic()
        sys.stderr.write(f"{self._events:,} events read, {self.found:,} found, at {stream}:{sequence}\n")

    def end(self) -> None:
        """Tell no more."""
        self._ended = True


def _print(entries: list[Entry], as_json: bool) -> None:
    for entry in entries:
        sys.stdout.write((msgspec.json.encode(entry.as_dict()).decode() if as_json else entry.line()) + "\n")
    if entries:
        sys.stdout.flush()


async def _numbered(entries: AsyncIterator[Entry]) -> AsyncIterator[tuple[int, Entry]]:
    number = 0
    async for entry in entries:
        number += 1
        yield number, entry
