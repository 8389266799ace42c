"""`riverrun verify`: proves that the read models are what the log says, or names where they are not."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.differences import Report
from projections.telling import Tell
from projections.verification import CannotCompare
from projections.verification import verify as compare
from runtime.cli import fail
from runtime.cli.progress import showing
from runtime.cli.target import Target, resolve_target
from runtime.cli.token import DURATION, UNIT_S
from streams.archived import ArchivedLog
from streams.jetstream import JetStream
from streams.ports import LogError

EXIT_DIFFERENT: Final = 1
SHOWN_MAX: Final = 20  # differences printed; `--json` has more


def verify(  # noqa: PLR0917  # each is an option
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    chain: Annotated[
        bool, typer.Option("--chain", help="Look for what was changed in log, archive and warm tier instead.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="An earlier report of --chain --json, kept elsewhere, to hold the chains against."),
    ] = None,
    wait: Annotated[str, typer.Option(help="How long the read models may take to catch up: 30s, 5m.")] = "30s",
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Compare the log with the read models, by conversation and by user; or with --chain all that is stored with what
    was stored then.

    Exit status: 0 equal, 1 different, 2 could not compare.
    """
    duration = DURATION.fullmatch(wait)
    if duration is None:
        fail(f"--wait {wait!r} is not a duration: one like 30s or 5m is expected")
    wait_s = int(duration[1]) * UNIT_S[duration[2]]
    target = resolve_target(url, data_dir)
    if chain or against is not None:
        from runtime.cli.verify_chain import verify_chain

        if not verify_chain(target, against, as_json=as_json):
            raise typer.Exit(EXIT_DIFFERENT)
        return
    try:
        with showing() as tell:
            report = asyncio.run(_compare(target, wait_s, tell))
    except (CannotCompare, LogError, ArchiveRefused, OSError) as error:
        fail(f"could not compare: {error}")
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        _print(report)
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)


async def _compare(target: Target, wait_s: float, tell: Tell) -> Report:
    jetstream = await JetStream.connect(target.nats_url, name="riverrun-verify")
    archive = ClickHouse(target.clickhouse_url)  # opened only where rows have left Postgres, or events the log
    try:
        log = ArchivedLog(jetstream.log, ClickHouseArchive(archive))
        partitions = target.partitions
        return await compare(log, target.postgres_url, partitions=partitions, wait_s=wait_s, cold=archive, tell=tell)
    finally:
        await archive.close()
        await jetstream.close()


def _print(report: Report) -> None:
    console = Console(soft_wrap=True)
    of = f"{report.conversations:,} conversations and {report.users:,} users"
    table = Table(title=f"{report.events:,} events of {of} in the log")
    table.add_column("read model")
    for heading in ("of", "rows", "different"):
        table.add_column(heading, justify="right")
    for model in report.models:
        of = f"{model.key_count:,} {model.keys}"
        table.add_row(model.model, of, f"{model.rows:,}", f"{len(model.differences):,}")
    console.print(table)
    for difference in report.differences[:SHOWN_MAX]:
        console.print(str(difference), markup=False, highlight=False)
    hidden = len(report.differences) - SHOWN_MAX
    if hidden > 0:
        console.print(f"… and {hidden:,} more", highlight=False)
    console.print("equal" if report.equal else f"{len(report.differences):,} differences", highlight=False)
