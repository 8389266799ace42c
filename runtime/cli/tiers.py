"""`riverrun tiers`: what lies in which tier, and a round of the store scheduler by hand."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import psycopg
import typer
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from rich.console import Console
from rich.table import Table

from domain.errors import Unavailable
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.tiers.cold import Cold
from projections.tiers.inventory import MILLION, Inventory, cost, look
from projections.tiers.policy import WarmPolicy
from projections.tiers.scheduler import Step, StoreScheduler
from runtime.cli import fail
from runtime.cli.progress import showing
from runtime.cli.target import Target, load_settings, resolve_target
from runtime.logs import configure
from runtime.roles import trimmer
from streams.jetstream import JetStream
from streams.ports import LogError

EXIT_DIFFERS: Final = 1
PRICE: Final = 0.1  # of a gigabyte and month: about what a cloud's block storage costs

T = TypeVar("T")

_Url = Annotated[str | None, typer.Option(help="The server, http://host:port.")]
_DataDir = Annotated[Path | None, typer.Option(help="The data dir of a local server.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]

app = typer.Typer(help="Show what lies in which tier; move what is old.", invoke_without_command=True)


@app.callback()
def main(
    context: typer.Context,
    as_json: _Json = False,
    price: Annotated[float, typer.Option(help="Of a gigabyte and month, for the cost.")] = PRICE,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Show what lies in which tier: rows, sizes, the last moves, bytes and cost of a million messages."""
    if context.invoked_subcommand is not None:
        return
    target = resolve_target(url, data_dir)
    inventory = _with_stores(target, _look)
    if as_json:
        sys.stdout.write(json.dumps(inventory.as_dict(price)) + "\n")
    else:
        _print(inventory, price)


@app.command()
def run(  # noqa: PLR0917  # each is an option
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    as_of: Annotated[
        str | None, typer.Option(help="As if it were another time, 2027-01-01: what would be, and a drill.")
    ] = None,
    warm_months: Annotated[str | None, typer.Option(help="Another policy than RIVERRUN_WARM_MONTHS.")] = None,
    log_days: Annotated[int | None, typer.Option(min=0, help="Another policy than RIVERRUN_LOG_DAYS.")] = None,
    as_json: _Json = False,
    url: _Url = None,
    data_dir: _DataDir = None,
) -> None:
    """Move now what is to be moved, and trim what is to be trimmed, unless somebody is at it.

    Exit status: 0 done, 1 the tiers differ somewhere, 2 a server does not answer.
    """
    settings = load_settings()
    text = settings.warm_months if warm_months is None else warm_months
    days = settings.log_days if log_days is None else log_days
    try:
        policy = WarmPolicy.parse(text)
    except ValueError as error:
        fail(f"--warm-months {text!r}: {error}")
    try:
        now = datetime.now(UTC) if as_of is None else datetime.fromisoformat(as_of).replace(tzinfo=UTC)
    except ValueError:
        fail(f"--as-of {as_of!r} is not a time: one like 2027-01-01 is expected")
    target = resolve_target(url, data_dir)

    async def move(pool: AsyncConnectionPool, clickhouse: ClickHouse) -> list[Step]:
        async with AsyncExitStack() as stack:
            trims = None
            if days:
                jetstream = await JetStream.connect(target.nats_url, name="riverrun-tiers")
                stack.push_async_callback(jetstream.close)
                trims = trimmer(jetstream.log, clickhouse, pool, target.partitions, days)
            cold = Cold(clickhouse, partitions=target.partitions)
            scheduler = StoreScheduler(pool, cold, policy, now=lambda: now, trimmer=trims)
            with showing() as tell:
                return [step async for step in scheduler.round(dry_run=dry_run, tell=tell)]

    steps = _with_stores(target, move)
    if as_json:
        sys.stdout.write(json.dumps([step._asdict() for step in steps]) + "\n")
    else:
        table = Table(title="Done")
        for heading in ("of", "part", "outcome", "rows", ""):
            table.add_column(heading, justify="right" if heading == "rows" else "left")
        for step in steps:
            table.add_row(step.what, step.part, step.outcome, f"{step.rows:,}", step.why)
        Console(soft_wrap=True).print(table if steps else "nothing is to be moved or trimmed")
    if any(step.outcome == "differs" for step in steps):
        raise typer.Exit(EXIT_DIFFERS)


async def _look(pool: AsyncConnectionPool, clickhouse: ClickHouse) -> Inventory:
    async with pool.connection() as connection:
        try:
            return await look(connection, clickhouse)
        except (LogError, ArchiveRefused) as error:
            return replace(await look(connection, None), cold_error=str(error))


def _with_stores(target: Target, work: Callable[[AsyncConnectionPool, ClickHouse], Coroutine[Any, Any, T]]) -> T:
    configure(level="error", form="auto")
    logging.disable()  # what goes wrong is told below, in one line

    async def connected() -> T:
        clickhouse = ClickHouse(target.clickhouse_url)
        try:
            async with AsyncConnectionPool(
                target.postgres_url, min_size=1, max_size=2, kwargs={"autocommit": True}, open=False
            ) as pool:
                await pool.wait()
                return await work(pool, clickhouse)
        finally:
            await clickhouse.close()

    try:
        return asyncio.run(connected())
    except (LogError, ArchiveRefused, Unavailable, OSError, psycopg.Error, PoolTimeout) as error:
        fail(f"a server does not answer: {' '.join(str(error).split())}")


def _print(inventory: Inventory, price: float) -> None:
    console = Console(soft_wrap=True)
    table = Table(title="What lies where")
    for heading in ("tier", "table", "part", "rows", "MB"):
        table.add_column(heading, justify="right" if heading in {"rows", "MB"} else "left")
    for place in inventory.places:
        table.add_row(place.tier, place.table, place.part, f"{place.rows:,}", f"{place.size_bytes / MILLION:,.1f}")
    console.print(table)
    for tier in ("warm", "cold"):
        if (size := inventory.bytes_a_million(tier)) is not None:
            each = f"{size / MILLION:,.0f} MB, {cost(size, price):,.4f} a month"
            console.print(f"a million messages, {tier}: {each}", highlight=False)
    if inventory.cold_error:
        console.print(f"cold: {inventory.cold_error}", highlight=False)
    moves = Table(title="Last moves" if inventory.moves else "Nothing has moved yet")
    for heading in ("read model", "month", "at", "rows", "stayed", "conversations", "MB freed"):
        moves.add_column(heading)
    for move in inventory.moves:
        numbers = (f"{move.rows:,}", f"{move.kept:,}", f"{move.conversations:,}", f"{move.freed_bytes / MILLION:,.1f}")
        moves.add_row(move.model, move.month, f"{move.moved_at:%Y-%m-%d %H:%M:%S}", *numbers)
    console.print(moves)
