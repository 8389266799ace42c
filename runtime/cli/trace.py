"""`riverrun trace`: what happened to one message, and why somebody did not see it. Read only, for operators."""

import asyncio
import dataclasses
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from domain.errors import Invalid
from domain.ids import check_user_id
from runtime.cli import fail
from runtime.cli.target import Target, load_settings, resolve_target
from runtime.cli.whole_log import whole_log
from runtime.settings import Settings, masked
from runtime.tracing.facts import Trace
from runtime.tracing.locate import NotFound
from runtime.tracing.timeline import timeline
from runtime.tracing.trace import Sources, trace
from streams.jetstream import JetStream
from streams.ports import BusError, LogError
from streams.public import rfc3339


def trace_message(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="A message's id, or CONVERSATION_ID:SEQ.")],
    *,
    user: Annotated[str | None, typer.Option(help="Only this user; the last line says why they saw it or not.")] = None,
    body: Annotated[bool, typer.Option("--body", help="Show the message's text as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a timeline.")] = False,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """What happened to a message: command, append, projections, fan-out, push to each session of each member, acks.

    Exit status: 0 found, 2 no such message, or the log does not answer.
    """
    if user is not None:
        try:
            check_user_id(user, field="--user")
        except Invalid as error:
            fail(f"--user {user!r} is no user id: {error.detail}")
    target, settings = resolve_target(url, data_dir), load_settings()
    try:
        found = asyncio.run(_trace(target, settings, message, user, body))
    except NotFound as error:
        fail(str(error))
    except (LogError, BusError, OSError) as error:
        fail(masked(f"could not trace: {error}"))
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found), default=_plain) + "\n")
    else:
        sys.stdout.write("\n".join(timeline(found)) + "\n")


async def _trace(target: Target, settings: Settings, message: str, user: str | None, body: bool) -> Trace:
    jetstream = await JetStream.connect(target.nats_url, name="riverrun-trace")
    try:
        async with whole_log(target, "trace") as log:
            sources = Sources(
                log,
                jetstream.bus,
                target.postgres_url,
                target.valkey_url,
                partitions=settings.partitions,
                fanout_limit=settings.fanout_limit,
            )
            return await trace(sources, message, user_id=user, body=body)
    finally:
        await jetstream.close()


def _plain(value: Any) -> Any:
    """What `json` does not know: times, and what gateways said."""
    return (
        rfc3339(value)
        if isinstance(value, datetime)
        else {name: getattr(value, name) for name in value.__struct_fields__}
    )
