"""The steps that bring a corpus through the tiers: projected, archived, compared with the log, moved, trimmed."""

import random
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from commands.covering import Covering
from projections.tiers import inventory
from projections.tiers.months import MODELS
from projections.tiers.policy import WarmPolicy
from projections.tiers.trimming import Trimmer
from streams.ports import Archive, Delivery, Log
from tests.proof.bars import Bar
from tests.proof.kills import through_kills
from tests.proof.outcome import Outcome
from tests.proof.site import Site
from tests.proof.told import Told

WARM_MONTHS: Final = "2"
SHOW_EVERY: Final = 5_000  # events
KEEP: Final = timedelta(0)  # the corpus is of months ago, and was stored just now

# Of each stream the lowest checkpoint of those that follow it.
_APPLIED: Final = """
    SELECT coalesce(sum(least), 0)::bigint FROM (
        SELECT min(sequence) AS least FROM checkpoints
        GROUP BY partition, projection IN ('users', 'markers')) AS each"""

_ARCHIVED: Final = "SELECT sum(last) FROM (SELECT max(last_sequence) AS last FROM archive_batches GROUP BY stream)"

_MOVED: Final = "SELECT count(DISTINCT (model, month_start)) FROM tier_moves"

_TYPED: Final = "SELECT conversation_id, count(), uniqExact(seq), max(seq), sum(message_id) FROM messages GROUP BY 1"


async def project(site: Site, bar: Bar) -> Outcome:
    """The read models, by the role that makes them."""
    total, outcome = sum((await site.ends()).values()), Outcome("project")

    async def applied() -> int:
        async with site.pool.connection() as connection:
            row = await (await connection.execute(_APPLIED)).fetchone()
            assert row is not None
            return int(row[0])

    began = await applied()
    await through_kills(site, site.role("projector"), applied, total, kills=0, dice=random.Random(), bar=bar)
    outcome.count = total - began
    return outcome


async def archive(site: Site, bar: Bar, *, kills: int, dice: random.Random) -> Outcome:
    """The archive, by an archiver that is killed on its way."""
    total, outcome = sum((await site.ends()).values()), Outcome("archive")

    async def archived() -> int:
        ((found,),) = await site.clickhouse.query(_ARCHIVED)
        return int(found)

    began = await archived()
    killed = await through_kills(site, site.role("archiver"), archived, total, kills=kills, dice=dice, bar=bar)
    outcome.count = total - began
    outcome.note = f"killed {killed} times on the way"
    outcome.numbers["kills"] = killed
    return outcome


async def compare(site: Site, told: list[Told], bar: Bar) -> Outcome:
    """The archive with the log, byte for byte; and the table of messages with what was told."""
    outcome, ends = Outcome("compare"), await site.ends()
    total = sum(ends.values())

    def show(count: int) -> None:
        bar(count, total)

    for stream, end in ends.items():
        await compare_stream(site.log, site.archive, stream, end, outcome, show)
    ((rows, distinct),) = await site.clickhouse.query("SELECT count(), uniqExact(stream, sequence) FROM events")
    if not rows == distinct == total:
        outcome.fault(f"the archive has {rows:,} events, {distinct:,} different ones, and the log {total:,}")
    found = {row[0]: tuple(row[1:]) for row in await site.clickhouse.query(_TYPED)}
    for one in told:
        wanted = (one.last_seq, one.last_seq, one.last_seq, sum(one.message_ids) & ((1 << 64) - 1))
        if (has := found.pop(one.conversation_id, None)) != wanted:
            outcome.fault(f"conversation {one.conversation_id}: the archive's messages are {has}, not {wanted}")
    if found:
        outcome.fault(f"the archive has {len(found)} conversations that nobody began")
    return outcome


async def compare_stream(
    log: Log, archive: Archive, stream: str, end: int, outcome: Outcome, show: Callable[[int], None]
) -> None:
    """One stream, event by event."""
    async with (
        aclosing(log.read(stream, up_to_sequence=end)) as logged,  # type: ignore[type-var]
        aclosing(archive.read(stream, up_to_sequence=end)) as archived,  # type: ignore[type-var]
    ):
        while True:
            wanted: Delivery | None = await anext(logged, None)
            found: Delivery | None = await anext(archived, None)
            if wanted is None and found is None:
                return
            if wanted != found:
                outcome.fault(f"{stream}: the log has {_named(wanted)}, and the archive {_named(found)}")
                if wanted is None or found is None or wanted.sequence != found.sequence:
                    return  # all that follows differs
            outcome.count += 1
            if outcome.count % SHOW_EVERY == 0:
                show(outcome.count)


def _named(delivery: Delivery | None) -> str:
    return f"sequence {delivery.sequence} ({delivery.subject})" if delivery else "nothing more"


async def move(site: Site, start: datetime, bar: Bar, *, kills: int, dice: random.Random) -> Outcome:
    """Old months out of Postgres, by a store scheduler that is killed on its way."""
    outcome = Outcome("move", unit="rows")
    before = await _look(site)
    horizon = min(WarmPolicy.parse(WARM_MONTHS).horizons(datetime.now(UTC)).values())
    months = max(0, (horizon.year - start.year) * 12 + horizon.month - start.month)

    async def moved() -> int:
        async with site.pool.connection() as connection:
            row = await (await connection.execute(_MOVED)).fetchone()
            assert row is not None
            return int(row[0])

    role = site.role("archiver", WARM_MONTHS=WARM_MONTHS)
    total = months * len(MODELS)
    killed = await through_kills(site, role, moved, total, kills=kills, dice=dice, bar=bar)
    after = await _look(site)
    outcome.count = sum(place.rows for place in before.places if place.tier == "warm") - sum(
        place.rows for place in after.places if place.tier == "warm"
    )
    outcome.note = f"{months} months; killed {killed} times on the way"
    outcome.numbers["kills"] = killed
    for tier, found in (("warm", before), ("cold", after)):
        outcome.numbers[f"{tier} bytes"] = (found.bytes_a_million(tier) or 0) / inventory.MILLION
    return outcome


async def _look(site: Site) -> inventory.Inventory:
    async with site.pool.connection() as connection:
        await connection.execute("ANALYZE messages, changes")
        return await inventory.look(connection, site.clickhouse)


async def trim(site: Site, bar: Bar) -> Outcome:
    """All of the log that is archived and applied, but for its last thousand events a stream."""
    outcome = Outcome("trim")

    def covering(family: str, partition: int) -> Covering:
        return Covering(site.pool, family=family, partition=partition)

    trimmer = Trimmer(site.log, site.archive, covering, partitions=site.partitions, keep=KEEP)
    async with site.pool.connection() as connection:
        planned = await trimmer.plan(connection, datetime.now(UTC))
    total = sum(one.events for one in planned)
    for one in planned:
        outcome.count += await trimmer.trim(one, lambda events: bar(outcome.count + events, total))
        bar(outcome.count, total)
        if (trimmed := await site.log.trimmed(one.stream)) != max(one.up_to_sequence, one.trimmed):
            outcome.fault(f"{one.stream} was trimmed up to {trimmed:,}, and not to {one.up_to_sequence:,}")
    outcome.note = "but for the last thousand of each stream, and keys"
    return outcome
