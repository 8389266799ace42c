"""A rebuild from beginning to end: a draft is loaded beside what is in force, caught up, compared, put in its place.

It remembers nothing outside its draft. Killed at any moment, what was in force still is, or the new one is; what the
draft leaves behind is dropped by whoever comes next. One process at a time has drafts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool

from projections.applying import OnApplied
from projections.catalogue import CATALOGUE, projection_of
from projections.differences import SHOWN_MAX
from projections.projection import Connection
from projections.rebuild import draft as drafts
from projections.rebuild.building import Building
from projections.rebuild.comparing import Comparison, compare
from projections.rebuild.deaths import Deaths
from projections.rebuild.draft import Draft
from projections.rebuild.loading import Applied, Died, Loader, Order, burying
from projections.rebuild.positions import Checkpoints, Place, as_of_now, catch_up, checkpoints
from projections.rebuild.slices import Portion, portions_of
from projections.rebuild.swapping import swap
from projections.telling import Tell
from projections.tiers import scheduler
from projections.tiers.leftovers import delete_left
from projections.tiers.months import MODELS, warm_months
from projections.tiers.moved import moved_months
from projections.tiers.policy import Leaving
from streams import subjects
from streams.ports import Log

LOCK: Final = 0x52695665_00000004  # "RiVe", 4: the advisory lock of the one that has drafts
POLL_S: Final = 0.1
WORTH_EVENTS: Final = 20_000  # for one more process: a second of work, and it takes one to begin
COMPARE_WAIT_S: Final = 10.0  # for what is in force to come as far as the draft is; workers are behind by milliseconds


class AnotherRebuild(Exception):
    """Somebody else rebuilds. One line."""

    def __init__(self) -> None:
        super().__init__("another rebuild, or shadow, is under way")


class NothingInForce(Exception):
    """A projection has never run, so there is nothing to compare with. One line."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        names: of the projections. events: that were folded, each once.
        compared: with what was in force before, table by table; none where that was behind the log.
        died: events that could not be applied.
        swapped: whether it is in force now.
    """

    names: Sequence[str]
    events: int
    compared: Sequence[Comparison] | None
    died: Sequence[Died]
    swapped: bool

    @property
    def equal(self) -> bool | None:
        """Whether it is what was in force before; `None`: not compared."""
        return None if self.compared is None else not any(one.different for one in self.compared)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        compared = self.compared or ()
        differences = [difference.as_dict() for one in compared for difference in one.differences]
        return {
            "projections": list(self.names),
            "events": self.events,
            "equal": self.equal,
            "in_force": self.swapped,
            "tables": {one.table: one.as_dict() for one in compared},
            "differences": differences[:SHOWN_MAX],
            "not_applied": [msgspec.structs.asdict(died) for died in self.died[:SHOWN_MAX]],
        }


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """Rebuilds read models of one deployment.

    Args:
        log: the archive before it, where it was trimmed.
        horizons: of each kind of conversations that leaves at all, the first moment that stays warm, now.
        load: has orders carried out, by so many `processes`.
        tell: of each step.
    """

    log: Log
    postgres_url: str
    partitions: int
    horizons: Callable[[], Leaving]
    load: Loader
    processes: int
    tell: Tell

    async def rebuild(self, names: Sequence[str], *, only_if_equal: bool = False) -> Rebuilt:
        """Rebuild the read models of some projections.

        Args:
            only_if_equal: what is in force stays when the new one is another, or could not be compared.

        Raises:
            AnotherRebuild; InUse: they are read for too long; Interrupted, psycopg.Error: Postgres does not answer;
            LogUnavailable: log or archive cannot be read, or there is a gap between them. Nothing has changed.
        """
        ends = await self._ends(names)
        async with self.drafted(names, ends) as building:
            compared = await self._compare(building)
            swapped = not only_if_equal or (compared is not None and not any(one.different for one in compared))
            if swapped:
                self.tell("swapping", 0, 0)

                async def now() -> Mapping[Place, int]:
                    return self._places(names, await self._ends(names))

                await swap(self.log, building, now)
                await building.deaths.mark(self.log)
        return Rebuilt(names, sum(ends.values()), compared, building.deaths.died, swapped)

    @asynccontextmanager
    async def drafted(
        self, names: Sequence[str], up_to: Mapping[str, int], *, moving: bool = False
    ) -> AsyncIterator[Building]:
        """A loaded draft, dropped in the end unless it was put in force.

        Args:
            up_to: by stream, what is loaded.
            moving: months may leave meanwhile.
        """
        async with await psycopg.AsyncConnection.connect(self.postgres_url, autocommit=True) as live:
            if not await _locked(live, LOCK):
                raise AnotherRebuild
            if "messages" in names and not moving:
                self.tell("waiting", 0, 0)
                await live.execute("SELECT pg_advisory_lock(%s)", (scheduler.LOCK,))
            await drafts.drop_left(live)
            draft, deaths = await drafts.create(live, names), Deaths(names)
            try:
                async with draft.pool(self.postgres_url) as pool:
                    await self._load(draft, up_to, deaths)
                    self.tell("indexing", 0, 0)
                    await self._settle(pool, draft, up_to)
                    if "messages" in names:
                        await self._leave(live, pool, draft)
                    await draft.finish(pool)
                    yield Building(live, pool, draft, deaths)
            finally:
                if not live.closed:
                    await drafts.drop(live, draft.schema)

    # -- the steps ------------------------------------------------------------------------------------------

    async def _load(self, draft: Draft, up_to: Mapping[str, int], deaths: Deaths) -> None:
        done, total = 0, sum(up_to.values())

        def tell(what: Applied | Died) -> None:
            nonlocal done
            deaths.tell(what)
            if isinstance(what, Applied):
                done += what.events
                self.tell("loading", done, total)

        self.tell("loading", 0, total)
        await self.load(self._orders(draft, up_to), tell)

    def _orders(self, draft: Draft, up_to: Mapping[str, int]) -> list[Order]:
        """As many as there are processes, of about the same size; fewer of a short log."""
        # Each portion is read for itself, and reading is half of the work: they pay where processes have cores for
        # themselves. The other half of the cores has Postgres and the log to serve.
        parts = 1
        while 2 * self.partitions * parts < self.processes:
            parts *= 2
        families = sorted({CATALOGUE[name].family for name in draft.names})
        portions = [portion for family in families for portion in portions_of(family, self.partitions, parts)]
        count = min(self.processes, -(-sum(up_to.values()) // WORTH_EVENTS))
        dealt: list[list[Portion]] = [[] for _ in range(count)]
        for index, portion in enumerate(sorted(portions, key=lambda one: -up_to[one.stream]) if count else ()):
            dealt[index % count].append(portion)
        return [Order(draft.schema, draft.names, mine, dict(up_to)) for mine in dealt if mine]

    async def _settle(self, pool: AsyncConnectionPool, draft: Draft, up_to: Mapping[str, int]) -> None:
        """From here on the draft's checkpoints are of partitions, not of slices."""
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM checkpoints")
            for (name, partition), sequence in self._places(draft.names, up_to).items():
                await connection.execute(
                    "INSERT INTO checkpoints VALUES (%s, %s, %s, %s)",
                    (name, partition, sequence, projection_of(name).version),
                )

    async def _leave(self, live: Connection, pool: AsyncConnectionPool, draft: Draft) -> None:
        """Delete what has left the warm tier, by the rule that it left by. What is left is what was to stay."""
        left = {model: await moved_months(live, model) for model in MODELS}
        for model in (model for model, months in left.items() if months):
            async with live.transaction():
                # Conversations say of what kind they are, in the draft or in force.
                await live.execute(
                    "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), true)",
                    (draft.schema,),
                )
                await delete_left(live, model, leaving=self.horizons())
            async with pool.connection() as connection:
                for month in await warm_months(connection, model):
                    if month.start.year * 100 + month.start.month in left[model]:
                        await connection.execute(f"VACUUM FULL {month.partition}".encode())  # nearly nothing stayed

    async def _compare(self, building: Building) -> Sequence[Comparison] | None:
        """With what is in force, as of a moment when it was no further back than the draft; `None`: it did not come."""
        self.tell("comparing", 0, 0)
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + COMPARE_WAIT_S
        while True:
            async with as_of_now(building.live) as there:
                if await self.brought_to(there, building):
                    async with building.pool.connection() as draft:
                        return await compare(building.live, draft, building.draft.names)
            if clock() > deadline_s or not self._moves(there, building.draft.names):
                return None
            await asyncio.sleep(POLL_S)

    def _moves(self, there: Checkpoints, names: Sequence[str]) -> bool:
        """Whether workers may be bringing forward what is in force: it is there, and of their version."""
        of_ours = {name: projection_of(name).version for name in names}
        found = [at.version == of_ours[place.projection] for place, at in there.items() if place.projection in of_ours]
        return all(found) and len(found) == len(names) * self.partitions

    async def in_force(self, names: Sequence[str]) -> dict[str, int]:
        """Up to where what is in force has everything, by stream.

        Raises:
            NothingInForce: it has never run. psycopg.Error: Postgres does not answer.
        """
        async with await psycopg.AsyncConnection.connect(self.postgres_url, autocommit=True) as connection:
            there = await checkpoints(connection)
        reached: dict[str, int] = {}
        for place, end in self._places(names, await self._ends(names)).items():
            if place not in there:
                raise NothingInForce(f"the projection {place.projection} has never run on partition {place.partition}")
            stream = subjects.stream(CATALOGUE[place.projection].family, place.partition)
            reached[stream] = min(reached.get(stream, end), there[place].sequence)
        return reached

    async def brought_to(self, there: Checkpoints, building: Building, *, on_applied: OnApplied | None = None) -> bool:
        """Bring a draft to where what is in force stands; whether it is there, and no further."""
        places = self._places(building.draft.names, dict.fromkeys(self._streams(building.draft.names), 0))
        if any(place not in there for place in places):
            return False
        targets = {place: there[place].sequence for place in places}
        async with building.pool.connection() as connection:
            if any(at.sequence > targets[place] for place, at in (await checkpoints(connection)).items()):
                return False
        bury = burying(building.deaths.tell)
        await catch_up(self.log, building.pool, targets, bury=bury, on_applied=on_applied)
        return True

    # -- places ---------------------------------------------------------------------------------------------

    def _streams(self, names: Sequence[str]) -> list[str]:
        families = sorted({CATALOGUE[name].family for name in names})
        return [subjects.stream(family, partition) for family in families for partition in range(self.partitions)]

    async def _ends(self, names: Sequence[str]) -> dict[str, int]:
        """Up to where the log goes, by stream."""
        return {stream: await self.log.last_sequence(stream) for stream in self._streams(names)}

    def _places(self, names: Sequence[str], by_stream: Mapping[str, int]) -> dict[Place, int]:
        return {
            Place(name, partition): by_stream[subjects.stream(CATALOGUE[name].family, partition)]
            for name in names
            for partition in range(self.partitions)
        }


async def _locked(connection: Connection, lock: int) -> bool:
    """Whether a lock is had, until the connection ends."""
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (lock,))).fetchone()
    return row is not None and bool(row[0])
