"""Rebuilding in tests: in this process, with what it did left to be looked at."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from psycopg_pool import AsyncConnectionPool

from projections.rebuild.loading import Order, TellLoaded, load
from projections.rebuild.rebuilding import Rebuilder
from projections.telling import Tell, untold
from projections.tiers.policy import WarmPolicy
from streams.ports import Log
from tests.projections.workers import rows

DRAFTS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'draft%'"


def rebuilder(
    log: Log,
    pool: AsyncConnectionPool,
    *,
    partitions: int = 1,
    tell: Tell = untold,
    warm_months: str = "0",
    now: datetime = datetime(2026, 6, 15, tzinfo=UTC),
) -> Rebuilder:
    """One that loads in two portions a partition, one after the other."""
    policy = WarmPolicy.parse(warm_months)

    async def loader(orders: Sequence[Order], tell: TellLoaded) -> None:
        for order in orders:
            await load(log, str(pool.conninfo), order, tell)

    return Rebuilder(
        log=log,
        postgres_url=str(pool.conninfo),
        partitions=partitions,
        horizons=lambda: policy.horizons(now),
        load=loader,
        processes=4 * partitions,
        tell=tell,
    )


async def drafts(pool: AsyncConnectionPool) -> list[str]:
    """Those there are."""
    return [name for (name,) in await rows(pool, DRAFTS)]


def with_loader(of: Rebuilder, loader: object) -> Rebuilder:
    """The same, loaded otherwise."""
    return replace(of, load=loader)  # type: ignore[arg-type]
