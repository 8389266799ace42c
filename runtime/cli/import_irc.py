"""`riverrun import irc`: posts IRC logs through the public API as their authors."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.cli import fail
from runtime.cli.target import Target, resolve_target
from runtime.client import ClientError, HttpClient, Retry
from runtime.importing import (
    COURTEOUS_PER_S,
    IMPORTER,
    RETRY_FOR_S,
    Import,
    ImportRefused,
    PostRefused,
    Source,
    Tally,
    nicks_of,
    read_sources,
)
from runtime.tokens import mint

TOKEN_TTL_S: Final = 24 * 3600  # of an author's token; longer than any import
EXIT_INTERRUPTED: Final = 130
WARNINGS_MAX: Final = 20

app = typer.Typer(help="Post logs of other chat systems.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Post logs of other chat systems."""


@app.command()
def irc(
    files: Annotated[list[Path], typer.Argument(help="Logs, in the order they are to be posted.", metavar="FILE")],
    *,
    conversation: Annotated[str, typer.Option(help="Name of the group; made if there is none.")],
    as_fast_as_possible: Annotated[
        bool, typer.Option(help=f"Without the limit of {COURTEOUS_PER_S:,} messages a second.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Post IRC logs, each message by its author. Run again, it posts only what is missing.

    The last line on stdout is JSON: posted, duplicates, skipped, conversation_id, last_seq, seconds.
    """
    console = Console(stderr=True)
    try:
        sources = read_sources(files)
    except ImportRefused as refusal:
        fail(str(refusal))
    target = resolve_target(url, data_dir)
    _announce(console, sources)
    tally = Tally(skipped=sum(source.log.without_text + len(source.log.refused) for source in sources))
    started = time.monotonic()
    total = sum(len(source.log.lines) for source in sources)
    try:
        with _progress(console, total) as advance:
            per_s = None if as_fast_as_possible else COURTEOUS_PER_S
            uvloop.run(_import(target, sources, conversation, per_s=per_s, tally=tally, advance=advance))
    except (ClientError, PostRefused) as error:
        done = tally.posted + tally.duplicates
        fail(f"{error} ({done:,} of {total:,} messages are posted; run it again for the rest)")
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; run it again for the rest", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    summary = {
        "posted": tally.posted,
        "duplicates": tally.duplicates,
        "skipped": tally.skipped,
        "conversation_id": tally.conversation_id,
        "last_seq": tally.last_seq,
        "seconds": round(time.monotonic() - started, 3),
    }
    sys.stdout.write(json.dumps(summary) + "\n")


async def _import(
    target: Target,
    sources: list[Source],
    name: str,
    *,
    per_s: float | None,
    tally: Tally,
    advance: Callable[[], None],
) -> None:
    def token(user_id: str) -> str:
        return mint(user_id, ttl_s=TOKEN_TTL_S, admin=False, secret=target.jwt_secret)

    async with HttpClient(target.url, token(IMPORTER)) as client:
        await client.version()  # a wrong URL is said at once; from here on a server may be away for a while
        await Import(
            client=client,
            mint=token,
            name=name,
            per_s=per_s,
            retry=Retry(RETRY_FOR_S),
            tally=tally,
            on_message=advance,
        ).run(sources)


def _announce(console: Console, sources: list[Source]) -> None:
    lines = sum(len(source.log.lines) for source in sources)
    users = len(nicks_of(sources))
    empty = sum(source.log.without_text for source in sources)
    console.print(
        f"{len(sources):,} files: {lines:,} messages by {users:,} users, {empty:,} lines without text", highlight=False
    )
    refused = [f"{source.path}, line {number}: {why}" for source in sources for number, why in source.log.refused]
    for warning in refused[:WARNINGS_MAX]:
        console.print(f"skipped: {warning}", highlight=False, markup=False)
    if len(refused) > WARNINGS_MAX:
        console.print(f"skipped: {len(refused) - WARNINGS_MAX:,} more lines", highlight=False)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("posting", total=total, rate="")
        started = time.monotonic()
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done % 20 == 0 or done == total:  # drawing at each of thousands a second is wasted
                rate = done / (time.monotonic() - started)
                progress.update(task, completed=done, rate=f"{rate:,.0f}/s")

        yield advance
