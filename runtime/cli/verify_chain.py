"""`riverrun verify --chain`: that nobody changed a byte of what is stored, or where."""

import json
import sys
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.table import Table

from projections.archive.clickhouse import ClickHouse
from projections.evidence.findings import ProofReport, kept_of
from projections.evidence.proof import prove
from projections.telling import Tell
from runtime.cli import fail
from runtime.cli.progress import showing
from runtime.cli.target import Target
from runtime.cli.whole_log import run_plainly
from runtime.terminal import printable, reader_may_leave
from streams.jetstream import JetStream
from streams.ports import LogUnavailable

SHOWN_MAX: Final = 20  # findings printed; `--json` has more


def verify_chain(target: Target, against: Path | None, *, as_json: bool) -> bool:
    """Go through everything and print what was found; whether that was nothing.

    Args:
        against: an earlier report, with the ends of the chains at that time.
    """
    kept = {} if against is None else _kept(against)
    with showing() as tell:
        report = run_plainly(lambda: _prove(target, kept, tell))
    with reader_may_leave():
        if as_json:
            sys.stdout.write(json.dumps(report.as_dict()) + "\n")
        else:
            _print(report)
    return report.intact


def _kept(path: Path) -> dict[str, tuple[int, str]]:
    try:
        return kept_of(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path}: {error}")


async def _prove(target: Target, kept: dict[str, tuple[int, str]], tell: Tell) -> ProofReport:
    jetstream = await JetStream.connect(target.nats_url, name="riverrun-verify")
    clickhouse = ClickHouse(target.clickhouse_url)
    try:
        return await prove(
            jetstream.log,
            clickhouse,
            target.postgres_url,
            partitions=target.partitions,
            kept=kept,
            tell=tell,
        )
    except psycopg.Error as error:
        raise LogUnavailable(f"Postgres: {error}") from error
    finally:
        await clickhouse.close()
        await jetstream.close()


def _print(report: ProofReport) -> None:
    console = Console(soft_wrap=True)
    table = Table(title="Chains")
    for heading in ("stream", "batches", "events archived", "events in the log", "up to"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    table.add_column("link begins", min_width=16)
    for stream in report.streams:
        numbers = (stream.batches, stream.events, stream.logged, stream.sequence)
        table.add_row(stream.stream, *(f"{number:,}" for number in numbers), stream.link[:16])
    console.print(table)
    rows = Table(title="Rows held against their events")
    rows.add_column("where")
    rows.add_column("rows", justify="right")
    for where, count in report.rows.items():
        rows.add_row(where, f"{count:,}")
    console.print(rows)
    for finding in report.findings.kept[:SHOWN_MAX]:
        console.print(printable(str(finding)), markup=False, highlight=False)
    if (hidden := report.findings.count - SHOWN_MAX) > 0:
        console.print(f"… and {hidden:,} more", highlight=False)
    console.print("intact" if report.intact else f"{report.findings.count:,} findings", highlight=False)
