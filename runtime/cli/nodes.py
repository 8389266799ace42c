"""`riverrun nodes`: who is in the deployment, what each works on, and how far behind it is."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from runtime.cli import fail
from runtime.cli.target import resolve_target
from streams.jetstream import JetStream
from streams.membership import Announcement, Held, announcements
from streams.ports import LogError

EVERY_S: Final = 1.0


def nodes(
    once: Annotated[bool, typer.Option("--once", help="Print the table once; so it is where there is no terminal.")] = (
        False
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, once.")] = False,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Show the nodes of the deployment: roles, partitions, how long the last move took, how far behind they are.

    Ctrl-C ends it. A node that is killed stays in the table for a second, one that hangs for three.
    """
    target = resolve_target(url, data_dir)
    try:
        asyncio.run(_show(target.nats_url, once=once or not sys.stdout.isatty(), as_json=as_json))
    except LogError as error:
        fail(f"the nodes cannot be read: {error}")
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _show(nats_url: str, *, once: bool, as_json: bool) -> None:
    jetstream = await JetStream.connect(nats_url, name="riverrun-nodes")
    try:
        if as_json:
            alive, ends = await _look(jetstream)
            found = {"nodes": msgspec.to_builtins(dict(sorted(alive.items()))), "ends": ends}
            sys.stdout.write(json.dumps(found) + "\n")
        elif once:
            Console().print(_table(*await _look(jetstream)))
        else:
            await _watch(jetstream)
    finally:
        await jetstream.close()


async def _look(jetstream: JetStream) -> tuple[dict[str, Announcement], dict[str, int]]:
    """The nodes, and where each stream that is worked on ends: asked after the nodes were, so no lag is negative."""
    alive = announcements(await jetstream.nodes.alive())
    streams = sorted({held.stream for node in alive.values() for of_role in node.held.values() for held in of_role})
    ends = await asyncio.gather(*(jetstream.log.last_sequence(stream) for stream in streams))
    return alive, dict(zip(streams, ends, strict=True))


async def _watch(jetstream: JetStream) -> None:
    with Live(auto_refresh=False) as live:
        while True:
            try:
                live.update(_table(*await _look(jetstream)), refresh=True)
            except LogError as error:
                live.update(f"the log does not answer: {error}", refresh=True)
            await asyncio.sleep(EVERY_S)


def _table(alive: dict[str, Announcement], ends: dict[str, int]) -> Table:
    table = Table(title=f"{len(alive)} nodes", title_justify="left")
    for heading in ("node", "roles", "up", "works on", "last move", "behind", "where"):
        table.add_column(heading, justify="right" if heading in {"up", "behind"} else "left")
    now_ms = time.time_ns() // 1_000_000
    for node_id, node in sorted(alive.items()):
        held = [held for of_role in node.held.values() for held in of_role]
        table.add_row(
            node_id,
            ", ".join(node.roles),
            _duration(now_ms - node.started_at_ms),
            "\n".join(_works_on(role, of_role, len(node.held)) for role, of_role in sorted(node.held.items())) or "-",
            _last_move(held, now_ms),
            _behind(held, ends),
            node.url or node.monitoring_url or f"pid {node.pid}",
        )
    return table


def _works_on(role: str, held: list[Held], roles: int) -> str:
    """`CONV 0 1 2, USER 1`; before it the role, where a node has several."""
    families: dict[str, list[str]] = {}
    for one in held:
        family, _, partition = one.stream.partition("-")
        families.setdefault(family, []).append(partition)
    partitions = ", ".join(f"{family} {' '.join(of_family)}" for family, of_family in families.items())
    return f"{role}: {partitions or 'nothing'}" if roles > 1 else partitions or "nothing"


def _behind(held: list[Held], ends: dict[str, int]) -> str:
    """`12 events`, `3 commands`: of all partitions together."""
    events = [ends[one.stream] - one.position for one in held if one.position is not None]
    commands = [one.waiting for one in held if one.waiting is not None]
    behind = [f"{sum(events):,} events"] if events else []
    return ", ".join([*behind, f"{sum(commands):,} commands"] if commands else behind) or "-"


def _last_move(held: list[Held], now_ms: int) -> str:
    if not held:
        return "-"
    last = max(held, key=lambda one: one.since_ms)
    return f"{last.stream} {_duration(now_ms - last.since_ms)} ago, in {last.took_ms} ms"


def _duration(ms: int) -> str:
    seconds = max(0, ms // 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
