"""`riverrun rebuild`: read models folded anew from archive and log, and put in force while everybody works."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import psycopg
import redis.asyncio
import typer
from psycopg_pool import PoolTimeout
from rich.console import Console
from rich.table import Table

from projections.archive.clickhouse import ArchiveRefused
from projections.catalogue import NAMES
from projections.differences import SHOWN_MAX as NAMED_MAX
from projections.differences import Difference
from projections.reader import Interrupted
from projections.rebuild.comparing import Comparison
from projections.rebuild.rebuilding import AnotherRebuild, NothingInForce, Rebuilt
from projections.rebuild.shadowing import Shadowed
from projections.rebuild.shadowing import shadow as shadow_of
from projections.rebuild.swapping import InUse
from runtime.cli import fail
from runtime.cli.process import run_until_stopped, unless_stopped
from runtime.cli.progress import showing
from runtime.cli.target import Target, load_settings, resolve_target
from runtime.logs import configure
from runtime.rebuilding import PROCESSES_MIN, LoadFailed, Servers, begin_hot, rebuilder
from streams.ports import LogError

EXIT_DIFFERENT: Final = 1
GRACE_S: Final = 5.0  # for the look that is under way
HOT: Final = "hot"  # what is in Valkey
SHOWN_MAX: Final = 20  # differences printed; `--json` has more


def rebuild(  # noqa: PLR0917  # each is an option
    projections: Annotated[
        list[str] | None, typer.Argument(help=f"Which: {', '.join(NAMES)}, {HOT}; without any all of them.")
    ] = None,
    only_if_equal: Annotated[
        bool, typer.Option("--only-if-equal", help="Leave in force what is, if the new one is not equal to it.")
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only follow what is in force, and tell what differs, until Ctrl-C.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long a shadow follows.")] = None,
    processes: Annotated[int | None, typer.Option(help="That fold at once; without it as many as cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Rebuild read models from archive and log, beside those in force, and put the new ones in their place.

    Exit status: 0 done, 1 left as it was because it is not equal, 2 could not be done: what was in force still is. Of a
    shadow: 0 equal in the end, 1 not.
    """
    wanted = projections or [*NAMES, HOT]
    if unknown := [name for name in wanted if name not in {*NAMES, HOT}]:
        fail(f"there is no projection {unknown[0]!r}: there are {', '.join(NAMES)}, and {HOT}")
    names = [name for name in NAMES if name in wanted]
    target = resolve_target(url, data_dir)
    configure(level="error", form="auto")
    logging.disable()  # what goes wrong is told below, in one line
    count = processes or max(PROCESSES_MIN, os.cpu_count() or 1)
    if shadow:
        _follow(target, [name for name in names if name != HOT], count, seconds, as_json=as_json)
        return
    with _plain_errors():
        rebuilt = asyncio.run(_rebuild(target, names, count, only_if_equal=only_if_equal)) if names else None
    if rebuilt is None or rebuilt.swapped:
        try:
            asyncio.run(begin_hot(target.valkey_url))
        except (redis.RedisError, OSError) as error:
            fail(f"Valkey does not answer; `riverrun rebuild {HOT}` when it does: {' '.join(str(error).split())}")
    _tell(rebuilt, as_json=as_json)
    if rebuilt is not None and not rebuilt.swapped:
        raise typer.Exit(EXIT_DIFFERENT)


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (AnotherRebuild, InUse, NothingInForce) as error:
        fail(str(error))
    except (LoadFailed, Interrupted, LogError, ArchiveRefused, OSError, psycopg.Error, PoolTimeout) as error:
        fail(f"could not be done: {' '.join(str(error).split())}")


def _follow(target: Target, names: list[str], processes: int, seconds: float | None, *, as_json: bool) -> None:
    """A shadow, to its end."""
    found: list[Shadowed | None] = []

    def on_difference(difference: Difference, is_one: bool) -> None:
        if as_json:
            sys.stdout.write(json.dumps({"differs": is_one, **difference.as_dict()}) + "\n")
        else:
            sys.stdout.write(f"{difference if is_one else f'{difference}: not any more'}\n")
        sys.stdout.flush()

    async def follow(stop: asyncio.Event) -> None:
        with showing() as tell:
            async with rebuilder(_servers(target), processes=processes, tell=tell) as work:
                following = shadow_of(work, names, stop=stop, seconds=seconds, on_difference=on_difference)
                found.append(await unless_stopped(following, stop, grace_s=GRACE_S))

    with _plain_errors():
        run_until_stopped(follow)
    if not found or found[0] is None:  # stopped before it had begun to follow
        return
    if as_json:
        sys.stdout.write(json.dumps(found[0].as_dict()) + "\n")
    else:
        _print_shadowed(found[0])
    if found[0].differences:
        raise typer.Exit(EXIT_DIFFERENT)


def _servers(target: Target) -> Servers:
    return Servers(
        nats_url=target.nats_url,
        postgres_url=target.postgres_url,
        clickhouse_url=target.clickhouse_url,
        partitions=target.partitions,
        warm_months=load_settings().warm_months,
    )


async def _rebuild(target: Target, names: list[str], processes: int, *, only_if_equal: bool) -> Rebuilt:
    with showing() as tell:
        async with rebuilder(_servers(target), processes=processes, tell=tell) as work:
            return await work.rebuild(names, only_if_equal=only_if_equal)


def _tell(rebuilt: Rebuilt | None, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"in_force": True, "events": 0} if rebuilt is None else rebuilt.as_dict()) + "\n")
    elif rebuilt is None:
        sys.stdout.write("the hot store begins anew\n")
    else:
        _print(rebuilt)


def _print(rebuilt: Rebuilt) -> None:
    console = Console(soft_wrap=True)
    if rebuilt.compared is None:
        console.print("not compared: what was in force is behind the log", highlight=False)
    else:
        console.print(_table(rebuilt.compared, f"{rebuilt.events:,} events, held against what was in force"))
        differences = [difference for one in rebuilt.compared for difference in one.differences]
        for difference in differences[:SHOWN_MAX]:
            console.print(str(difference), markup=False, highlight=False)
    for died in rebuilt.died[:NAMED_MAX]:
        console.print(f"not applied: {died}", markup=False, highlight=False)
    console.print("in force" if rebuilt.swapped else "not equal: left as it was", highlight=False)


def _print_shadowed(shadowed: Shadowed) -> None:
    console = Console(soft_wrap=True)
    title = f"{shadowed.events:,} events followed, {shadowed.looks:,} looks"
    console.print(_table(list(shadowed.compared.values()), title))
    for died in shadowed.died[:NAMED_MAX]:
        console.print(f"not applied: {died}", markup=False, highlight=False)
    console.print(
        "equal" if not shadowed.differences else f"{len(shadowed.differences):,} differences", highlight=False
    )


def _table(compared: Sequence[Comparison], title: str) -> Table:
    """Comparisons, a line a table."""
    table = Table(title=title)
    table.add_column("table")
    for heading in ("of", "rows", "different"):
        table.add_column(heading, justify="right")
    for one in compared:
        table.add_row(one.table, f"{one.key_count:,} {one.keys}", f"{one.rows:,}", f"{one.different:,}")
    return table
