"""`riverrun dead`: events that a projection could not apply, listed, and applied once what was wrong is mended."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import psycopg
import redis.asyncio
import typer
from rich.console import Console
from rich.table import Table

from projections.conversations import ConversationsProjection
from projections.dead import DeadEvent, by_aggregate, dead_events
from projections.dead import replay as fold_anew
from projections.heads import HeadsProjection
from projections.hot_keys import EPOCH
from projections.markers import MarkersProjection
from projections.messages import MessagesProjection
from projections.projection import Projection
from projections.users import UsersProjection
from runtime.cli import fail
from runtime.cli.target import Target, resolve_target
from runtime.cli.whole_log import whole_log
from streams.ports import Log, LogError

EXIT_LEFT: Final = 1

T = TypeVar("T")

_Url = Annotated[str | None, typer.Option(help="The server, http://host:port.")]
_DataDir = Annotated[Path | None, typer.Option(help="The data dir of a local server.")]

app = typer.Typer(help="List and replay events that a projection could not apply.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """List and replay events that a projection could not apply."""


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """List what was not replayed since, in the order it died."""
    dead = _with_log(resolve_target(url, data_dir), dead_events)
    if as_json:
        for event in dead:
            sys.stdout.write(json.dumps(event._asdict()) + "\n")
        return
    table = Table(title=f"{len(dead):,} dead events")
    for heading in ("number", "projection", "stream", "sequence", "subject", "error"):
        table.add_column(heading, overflow="fold")
    for event in dead:
        table.add_row(*map(str, event))
    Console().print(table, markup=False)


@app.command()
def replay(
    projection: Annotated[str | None, typer.Option(help="Of this projection only.")] = None,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Fold conversations and users anew of which events have died, in the projections that passed them over.

    Exit status: 0 all are applied, 1 some still cannot be, 2 a server does not answer.
    """
    target = resolve_target(url, data_dir)
    left = _with_log(target, lambda log: _replay(log, target, projection))
    if left:
        raise typer.Exit(EXIT_LEFT)


async def _replay(log: Log, target: Target, only: str | None) -> int:
    """How many events are still dead."""
    dead = [event for event in await dead_events(log) if only is None or event.projection == only]
    applied = left = 0
    async with await psycopg.AsyncConnection.connect(target.postgres_url, autocommit=True) as connection:
        for events in by_aggregate(dead):
            try:
                await fold_anew(log, connection, _projection(events[0]), events)
            except (LogError, psycopg.OperationalError):
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's, and is told
                left += len(events)
                why = " ".join(f"{type(error).__name__}: {error}".split())
                sys.stderr.write(f"{events[0].projection}: {events[0].subject} still cannot be applied: {why}\n")
            else:
                applied += len(events)
    if applied:
        # The hot store was not told: it begins anew, as after a flush.
        async with redis.asyncio.Redis.from_url(target.valkey_url) as valkey:
            await valkey.delete(EPOCH)
    sys.stdout.write(f"{applied:,} events replayed, {left:,} still dead\n")
    return left


def _projection(event: DeadEvent) -> Projection:
    projections: tuple[Projection, ...] = (
        *(ConversationsProjection(), HeadsProjection(), MessagesProjection()),
        *(UsersProjection(), MarkersProjection()),
    )
    return next(projection for projection in projections if projection.name == event.projection)


def _with_log(target: Target, work: Callable[[Log], Coroutine[Any, Any, T]]) -> T:
    async def connected() -> T:
        async with whole_log(target, "dead") as log:
            return await work(log)

    try:
        return asyncio.run(connected())
    except (LogError, OSError, psycopg.OperationalError, redis.RedisError) as error:
        fail(f"a server does not answer: {' '.join(str(error).split())}")
