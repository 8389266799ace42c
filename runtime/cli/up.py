"""`riverrun up`: everything in one place, from one data directory."""

import asyncio
import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.process import plain_errors, run_until_stopped, start_process, unless_stopped
from runtime.cli.target import DEFAULT_DATA_DIR, JWT_SECRET, RUN_RECORD
from runtime.settings import Settings

CURSOR_KEY = "cursor.key"
GRACE_BEYOND_DRAIN_S = 1.0


def up(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; made at the first start.")] = (
        DEFAULT_DATA_DIR
    ),
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for any. [default: 8080]", min=0, max=65535)] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Three nats-servers, two processes of each role.")] = False,
) -> None:
    """Run everything here: nats-server, Postgres, Valkey, ClickHouse and all roles, from one data directory.

    Started again on the same directory it has lost nothing. Ctrl-C drains and stops; a second one hurries.

    With --cluster every role runs twice, each in a process of its own, over three nats-servers that keep the log three
    times; `riverrun nodes` shows them. Any of them may be killed. One door (haproxy, where it is installed) stands
    before the two gateways. A data directory stays what it was begun as.
    """
    settings = start_process(host=host, port=port)
    with plain_errors(settings):
        if settings.port:
            # The servers take a second to start: what would fail after that is better said before.
            with socket.create_server((settings.host, settings.port), family=_family(settings.host)):
                pass
        run = _up_cluster if cluster else _up
        run_until_stopped(lambda stop: run(settings, data_dir.absolute(), stop))


async def _up(settings: Settings, data_dir: Path, stop: asyncio.Event) -> None:
    from runtime import wiring
    from runtime.embedded.servers import EmbeddedServers

    servers = EmbeddedServers(data_dir, analyst_limits=settings.analyst_limits)
    try:
        await unless_stopped(servers.start(), stop, grace_s=0)
        if stop.is_set():
            return
        settings = _with_keys(
            replace(
                settings,
                nats_url=servers.nats_url,
                nats_monitoring_url=servers.nats_monitoring_url,
                postgres_url=servers.postgres_url,
                valkey_url=servers.valkey_url,
                clickhouse_url=servers.clickhouse_url,
                clickhouse_analyst_url=servers.clickhouse_analyst_url,
            ),
            data_dir,
        )

        def ready(url: str) -> None:
            def record() -> None:
                monitoring_urls = {settings.node_id: _monitoring_url(settings) or url}
                _record(data_dir, settings, url, servers.pids, monitoring_urls)

            record()
            servers.on_restart(record)
            sys.stdout.write(_banner(url, data_dir))
            sys.stdout.flush()

        await unless_stopped(
            wiring.run(settings, wiring.ROLES, ready=ready, stop=stop),
            stop,
            grace_s=settings.drain_s + GRACE_BEYOND_DRAIN_S,
        )
        (data_dir / RUN_RECORD).unlink(missing_ok=True)
    finally:
        await servers.stop()


async def _up_cluster(settings: Settings, data_dir: Path, stop: asyncio.Event) -> None:
    from runtime.cluster import Cluster

    cluster = Cluster(data_dir, settings, lambda settings: _with_keys(settings, data_dir), with_archive=True)

    def record() -> None:
        _record(data_dir, cluster.settings, cluster.url, cluster.pids, cluster.node_urls)

    try:
        await unless_stopped(cluster.start(), stop, grace_s=0)
        if stop.is_set():
            return
        record()
        cluster.on_restart(record)
        sys.stdout.write(_banner(cluster.url, data_dir))
        for url in cluster.gateway_urls:
            sys.stdout.write(f"  gateway {url}\n")
        sys.stdout.write("\n")
        sys.stdout.flush()
        await stop.wait()
        (data_dir / RUN_RECORD).unlink(missing_ok=True)
    finally:
        await cluster.stop()


def _with_keys(settings: Settings, data_dir: Path) -> Settings:
    """The settings with the secrets of the data directory where none are given."""
    from runtime.embedded.errors import DataDirUnusable
    from runtime.secret_file import load_or_create_secret

    jwt_secret = settings.jwt_secret_file or data_dir / JWT_SECRET
    cursor_key = settings.cursor_key_file or data_dir / CURSOR_KEY
    try:
        load_or_create_secret(jwt_secret)
        load_or_create_secret(cursor_key)
    except (OSError, ValueError) as error:
        raise DataDirUnusable(data_dir, str(error)) from None
    return replace(settings, jwt_secret_file=jwt_secret, cursor_key_file=cursor_key)


def _record(
    data_dir: Path, settings: Settings, url: str, pids: dict[str, int], monitoring_urls: dict[str, str]
) -> None:
    """Write `run.json`: whole or not at all, and for its owner only, for it holds the servers' passwords."""
    record = {
        "url": url,
        "pid": os.getpid(),
        "pids": pids,
        "monitoring_urls": monitoring_urls,
        "partitions": settings.partitions,
        "nats_url": settings.nats_url,
        "nats_monitoring_url": settings.nats_monitoring_url,
        "postgres_url": settings.postgres_url,
        "valkey_url": settings.valkey_url,
        "clickhouse_url": settings.clickhouse_url,
    }
    draft = data_dir / f".{RUN_RECORD}.new"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
    draft.rename(data_dir / RUN_RECORD)


def _monitoring_url(settings: Settings) -> str:
    """Of the listener that a port is set for, else ""."""
    host, port = settings.monitoring_host, settings.monitoring_port
    if not port:
        return ""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(url: str, data_dir: Path) -> str:
    where = "" if data_dir == DEFAULT_DATA_DIR.absolute() else f" --data-dir '{data_dir}'"
    return (
        f"\nRiverrun is ready at {url}\n"
        f"  data    {data_dir}\n"
        f"  token   riverrun token --user alice{where}\n"
        "  stop    Ctrl-C\n\n"
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
