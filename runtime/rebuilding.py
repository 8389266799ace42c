"""Rebuilding by several processes: this one gives orders, and each of the others folds slices of the log.

They die with the one that started them, and tell it what they do, line by line. What they are told comes by their
standard input: URLs hold passwords.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec
import psycopg
import redis.asyncio
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.archive.reading import ClickHouseArchive
from projections.catalogue import NAMES, projection_of
from projections.hot_keys import EPOCH
from projections.reader import Interrupted
from projections.rebuild.loading import Applied, Died, Loader, Order, TellLoaded, load
from projections.rebuild.positions import checkpoints
from projections.rebuild.rebuilding import AnotherRebuild, Rebuilder
from projections.rebuild.swapping import InUse
from projections.telling import Tell, untold
from projections.tiers.policy import WarmPolicy
from runtime.collector import spare_the_collector
from runtime.embedded.child import Account, leashed
from streams.archived import ArchivedLog
from streams.jetstream import JetStream
from streams.ports import LogError

OUTDATED_S: Final = 5.0  # between two looks for read models of an older version
PROCESSES_MIN: Final = 2  # of which one folds while the other waits for Postgres


class LoadFailed(Exception):
    """A process could not carry out its order. One line."""


# What a rebuild may end in, for no fault of ours. What was in force still is; of Valkey's, the new one is.
FAILURES: Final = (
    *(LoadFailed, InUse, Interrupted, LogError, ArchiveRefused),
    *(OSError, psycopg.Error, PoolTimeout, redis.RedisError),
)


class Servers(msgspec.Struct, frozen=True):
    """What a rebuild needs of a deployment."""

    nats_url: str
    postgres_url: str
    clickhouse_url: str
    partitions: int
    warm_months: str


class _Work(msgspec.Struct, frozen=True):
    servers: Servers
    order: Order


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: str


log_ = structlog.get_logger(__name__)

_said = msgspec.json.Decoder(Applied | Died | _Failed).decode


@asynccontextmanager
async def rebuilder(servers: Servers, *, processes: int, tell: Tell) -> AsyncIterator[Rebuilder]:
    """What rebuilds the read models of a deployment, by so many processes.

    Raises:
        LogUnavailable: NATS does not answer.
    """
    policy = WarmPolicy.parse(servers.warm_months)
    async with _archived_log(servers) as log:
        yield Rebuilder(
            log=log,
            postgres_url=servers.postgres_url,
            partitions=servers.partitions,
            horizons=lambda: policy.horizons(datetime.now(UTC)),
            load=_loader(servers),
            processes=processes,
            tell=tell,
        )


async def begin_hot(valkey_url: str) -> None:
    """Have the hot store begin anew, as after a flush: it is filled from the read models.

    Raises:
        redis.RedisError, OSError: Valkey does not answer.
    """
    async with redis.asyncio.Redis.from_url(valkey_url) as valkey:
        await valkey.delete(EPOCH)


async def rebuild_outdated(servers: Servers, pool: AsyncConnectionPool, valkey_url: str) -> None:
    """Rebuild read models that an older version of their projection has made, whenever there are any; until cancelled.

    Those of a newer version are left alone: a process of the release before does not take back what this one made.
    """
    hot_is_old = False
    while True:
        try:
            if names := await _outdated(pool):
                log_.warning("read models of an older version are rebuilt", projections=names)
                async with rebuilder(servers, processes=PROCESSES_MIN, tell=untold) as work:
                    rebuilt = await work.rebuild(names)
                hot_is_old = True
                log_.info("read models are rebuilt", projections=names, events=rebuilt.events, dead=len(rebuilt.died))
            if hot_is_old:
                await begin_hot(valkey_url)
                hot_is_old = False
        except AnotherRebuild:
            log_.info("somebody else rebuilds")
        except FAILURES as error:
            log_.error("read models could not be rebuilt", error=" ".join(str(error).split()))
        await asyncio.sleep(OUTDATED_S)


async def _outdated(pool: AsyncConnectionPool) -> list[str]:
    async with pool.connection() as connection:
        there = await checkpoints(connection)
    ours = {name: projection_of(name).version for name in NAMES}
    older = {place.projection for place, at in there.items() if at.version < ours.get(place.projection, 0)}
    return [name for name in NAMES if name in older]


@asynccontextmanager
async def _archived_log(servers: Servers) -> AsyncIterator[ArchivedLog]:
    jetstream = await JetStream.connect(servers.nats_url, name="riverrun-rebuild")
    clickhouse = ClickHouse(servers.clickhouse_url)  # opened only where the log was trimmed
    try:
        yield ArchivedLog(jetstream.log, ClickHouseArchive(clickhouse))
    finally:
        await clickhouse.close()
        await jetstream.close()


def _loader(servers: Servers) -> Loader:
    async def loader(orders: Sequence[Order], tell: TellLoaded) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for order in orders:
                    group.create_task(_carry_out(_Work(servers, order), tell))
        except* LoadFailed as failures:
            raise failures.exceptions[0] from None

    return loader


async def _carry_out(work: _Work, tell: TellLoaded) -> None:
    """One process, from its start to its end."""
    command = (sys.executable, "-m", "runtime.rebuilding")
    process = await asyncio.create_subprocess_exec(
        *leashed(command, Account.current(), signal.SIGKILL),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(work))
        process.stdin.close()
        async for line in process.stdout:
            said = _said(line)
            if isinstance(said, _Failed):
                raise LoadFailed(said.error)
            tell(said)
        if status := await process.wait():
            raise LoadFailed(f"a process of the rebuild ended with status {status}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    """One of the processes: carries out the order on its standard input."""
    import uvloop

    work = msgspec.json.decode(sys.stdin.buffer.read(), type=_Work)
    spare_the_collector()
    try:
        uvloop.run(_load(work))
    except (Interrupted, LogError, ArchiveRefused, psycopg.Error, OSError) as error:
        _say(_Failed(" ".join(str(error).split()) or repr(error)))


async def _load(work: _Work) -> None:
    async with _archived_log(work.servers) as log:
        await load(log, work.servers.postgres_url, work.order, _say)


def _say(what: Applied | Died | _Failed) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
