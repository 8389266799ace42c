"""`riverrun bench`: load on a running server from outside, through the public API."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from runtime.bench import processes
from runtime.bench.crowd import gather
from runtime.bench.fanout import FanoutFailed, fan_out
from runtime.bench.machine import machine
from runtime.bench.processes import WorkerFailed
from runtime.bench.send import SendPlan, report, send
from runtime.cli import fail
from runtime.cli.target import Target, resolve_target
from runtime.client import ClientError
from runtime.tokens import mint

TOKEN_TTL_S: Final = 24 * 3600

app = typer.Typer(help="Put load on a running server and measure it.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option("--url", help="The server, http://host:port.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The data dir of a local server.")]
Seconds = Annotated[float, typer.Option(help="How long to measure.", min=0.1)]
Warmup = Annotated[float, typer.Option(help="Seconds of load before that.", min=0)]
Size = Annotated[int, typer.Option(help="Characters a message.", min=1, max=8192)]
Rate = Annotated[float | None, typer.Option(help="Messages a second, due whatever happens (open loop).", min=0.01)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON only.")]


@app.command("send")
def send_command(
    *,
    senders: Annotated[int, typer.Option(help="Users who post.", min=1)] = 200,
    conversations: Annotated[int, typer.Option(help="Groups they are spread over.", min=1)] = 20,
    seconds: Seconds = 10,
    warmup: Warmup = 2,
    size: Size = 100,
    rate: Rate = None,
    workers: Annotated[int, typer.Option("--processes", help="Processes that make the load.", min=1)] = 1,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Durable sends: acks a second, and send to ack. Each sender has one message under way, or see --rate."""
    target = resolve_target(url, data_dir)
    if conversations > senders or workers > senders:
        fail("every conversation and every process needs a sender")

    def measure() -> dict[str, Any]:
        seats = uvloop.run(gather(target.url, _tokens(target), users=senders, conversations=conversations))
        plans = [
            SendPlan(target.url, seats[first::workers], seconds, warmup, size, None if rate is None else rate / workers)
            for first in range(workers)
        ]
        return msgspec.to_builtins(report(processes.run(send, plans), seconds))  # type: ignore[no-any-return]

    load = {
        "senders": senders,
        "conversations": conversations,
        "seconds": seconds,
        "size": size,
        "rate": rate,
        "processes": workers,
    }
    _show("send", load, _measured(measure), as_json)


@app.command("fanout")
def fanout_command(
    *,
    members: Annotated[int, typer.Option(help="Connected members of the one group.", min=2, max=10_000)] = 100,
    seconds: Seconds = 10,
    warmup: Warmup = 2,
    size: Size = 100,
    window: Annotated[int, typer.Option(help="Messages under way at once (closed loop).", min=1)] = 4,
    rate: Rate = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Fan-out: deliveries a second, and from a send until the last member has it."""
    target = resolve_target(url, data_dir)

    async def run() -> dict[str, Any]:
        seats = await gather(target.url, _tokens(target), users=members, conversations=1)
        figures = await fan_out(
            target.url,
            [seat.token for seat in seats],
            seats[0].conversation_id,
            seconds=seconds,
            warmup_s=warmup,
            size_bytes=size,
            window=window,
            rate=rate,
        )
        built: dict[str, Any] = msgspec.to_builtins(figures)
        del built["push"]
        return built

    load = {"members": members, "seconds": seconds, "size": size, "window": None if rate else window, "rate": rate}
    _show("fanout", load, _measured(lambda: uvloop.run(run())), as_json)


def _tokens(target: Target) -> Callable[[str], str]:
    return lambda user_id: mint(user_id, ttl_s=TOKEN_TTL_S, admin=False, secret=target.jwt_secret)


def _measured(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measure()
    except (ClientError, FanoutFailed, WorkerFailed) as error:
        fail(str(error))


def _show(name: str, load: dict[str, Any], figures: dict[str, Any], as_json: bool) -> None:
    about = machine()
    if not as_json:
        table = Table("", name, title=f"riverrun bench {name}")
        for part in (load, figures, about):
            for key, value in part.items():
                if value is not None:
                    table.add_row(key.replace("_", " "), _cell(value))
            table.add_section()
        Console().print(table)
    sys.stdout.write(json.dumps({"bench": name, "load": load, "figures": figures, "machine": about}) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
