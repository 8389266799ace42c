"""The course of a proof: its steps in their order, each done once.

What is done is kept, so that a proof that was broken off, or killed, goes on with the step it was in.
"""

import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

import redis.asyncio

from projections.verification import verify
from streams.jetstream.api import call
from streams.jetstream.connection import Connection
from tests.proof import storing
from tests.proof.bars import Bar, Bars
from tests.proof.corpus import Corpus, Plan
from tests.proof.outcome import Outcome
from tests.proof.rebuilding import rebuild
from tests.proof.site import Role, Site, opened
from tests.proof.source import Source
from tests.proof.told import Told, load, save
from tests.proof.walk import Walk
from tests.proof.writing import write

EVERYTHING: Final = "api,writer,projector,fanout,archiver"
BYTES_A_MESSAGE: Final = 2_500  # at the most at once: log, Postgres with its own log, ClickHouse while it merges
BYTES_AT_LEAST: Final = 2_000_000_000
VERIFY_WAIT_S: Final = 120.0

STEPS: Final = ("write", "archive", "compare", "project", "move", "trim", "walk", "rebuild", "verify")

Step: TypeAlias = Callable[[Bar], Awaitable[Outcome]]


class CannotRun(Exception):
    """There is no room, or what was kept is of another plan. One line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a proof is to do.

    Attributes:
        irc: the folder of IRC logs; an invented chat without it.
        until: the last step; all of them without it.
        without: steps that are left out.
    """

    messages: int
    irc: Path | None
    months: int = 9
    partitions: int = 2
    seed: int = 1
    pages: int = 10_000
    kills: int = 30
    until: str = ""
    without: frozenset[str] = frozenset()

    @property
    def needed_bytes(self) -> int:
        """The disk it takes."""
        return BYTES_AT_LEAST + self.messages * BYTES_A_MESSAGE


class Proof:
    """One proof in one folder."""

    def __init__(self, wanted: Wanted, folder: Path, bars: Bars) -> None:
        self.wanted = wanted
        self.outcomes: dict[str, Outcome] = {}
        self._folder = folder
        self._bars = bars
        self._source = Source.of(wanted.irc)
        self._told: list[Told] = []
        self._everything: Role | None = None
        self._plan = self._begin()

    def _begin(self) -> Plan:
        """The plan, and what has been done of it."""
        state = self._folder / "state.json"
        made = {name: getattr(self.wanted, name) for name in ("messages", "months", "partitions", "seed")}
        made["source"] = len(self._source.lines)
        if state.exists():
            kept = json.loads(state.read_text())
            if kept["plan"] != made:
                raise CannotRun(f"{self._folder} is of another plan: {kept['plan']}")
            self.outcomes = {name: Outcome.of(values) for name, values in kept["outcomes"].items()}
            start = datetime.fromisoformat(kept["start"])
        else:
            today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            start = today - timedelta(days=30 * self.wanted.months)
            if (free := shutil.disk_usage(self._folder).free) < self.wanted.needed_bytes:
                raise CannotRun(f"it takes {self.wanted.needed_bytes:,} bytes, and {self._folder} has {free:,} free")
        self._start, self._made = start, made
        self._keep()
        return Plan(self.wanted.messages, start, self.wanted.months, self.wanted.partitions, self.wanted.seed)

    def _keep(self) -> None:
        outcomes = {name: outcome.as_dict() for name, outcome in self.outcomes.items()}
        state = {"plan": self._made, "start": self._start.isoformat(), "outcomes": outcomes}
        new = self._folder / "state.new"
        new.write_text(json.dumps(state, indent=1))
        new.replace(self._folder / "state.json")

    async def run(self) -> Sequence[Outcome]:
        """All steps that are not done yet; what came of every one."""
        async with opened(self._folder, partitions=self._plan.partitions) as site:
            try:
                for name, step in self._steps(site).items():
                    if name not in self.outcomes and name not in self.wanted.without:
                        await self._take(name, step)
                    if name == self.wanted.until:
                        break
            finally:
                if self._everything is not None:
                    await self._everything.stop()
        return list(self.outcomes.values())

    async def _served(self, site: Site) -> Role:
        """All roles in one process, from the step that first needs it to the end."""
        if self._everything is None:
            self._everything = site.role(EVERYTHING, WARM_MONTHS=storing.WARM_MONTHS)
            await self._everything.spawn()
            await self._everything.serving()
        return self._everything

    async def _take(self, name: str, step: Step) -> None:
        began_s = time.monotonic()
        with self._bars.step(name) as bar:
            outcome = await step(bar)
        outcome.seconds = time.monotonic() - began_s
        self.outcomes[name] = outcome
        self._keep()

    def _steps(self, site: Site) -> dict[str, Step]:
        kills, seed = self.wanted.kills, self.wanted.seed

        async def write_(bar: Bar) -> Outcome:
            return await self._write(site, bar)

        async def project(bar: Bar) -> Outcome:
            outcome = await storing.project(site, bar)
            outcome.numbers["hot bytes"] = await _hot_bytes(site) / self.wanted.messages
            return outcome

        async def archive(bar: Bar) -> Outcome:
            return await storing.archive(site, bar, kills=kills - kills // 2, dice=random.Random(seed))

        async def compare(bar: Bar) -> Outcome:
            return await storing.compare(site, self._history(), bar)

        async def move(bar: Bar) -> Outcome:
            return await storing.move(site, self._start, bar, kills=kills // 2, dice=random.Random(seed + 1))

        async def trim(bar: Bar) -> Outcome:
            return await storing.trim(site, bar)

        async def walk(bar: Bar) -> Outcome:
            role = await self._served(site)
            return await Walk(role.url, site.secret, self._history(), seed=seed).run(self.wanted.pages, bar)

        async def rebuild_(bar: Bar) -> Outcome:
            return await rebuild(site, await self._served(site), bar)

        async def verify_(bar: Bar) -> Outcome:
            await self._served(site)  # which applies what was posted last
            return await self._verify(site, bar)

        steps = (write_, archive, compare, project, move, trim, walk, rebuild_, verify_)
        return dict(zip(STEPS, steps, strict=True))

    async def _write(self, site: Site, bar: Bar) -> Outcome:
        corpus, outcome = Corpus(self._plan, self._source), Outcome("write")
        bar(0, self._plan.messages)
        outcome.count = await write(site.log, corpus, bar)
        save(self._folder / "told.pickle", corpus.told)
        self._told = corpus.told
        outcome.note = f"{self._plan.messages:,} messages in {len(corpus.told):,} conversations"
        outcome.numbers["log bytes"] = await _log_bytes(site) / self._plan.messages
        return outcome

    def _history(self) -> list[Told]:
        self._told = self._told or load(self._folder / "told.pickle", self._source)
        return self._told

    async def _verify(self, site: Site, bar: Bar) -> Outcome:
        """Every read model with a fold of the whole log, of which most is in the archive, and old months too."""
        outcome = Outcome("verify")
        report = await verify(
            site.whole,
            site.servers.postgres_url,
            partitions=site.partitions,
            wait_s=VERIFY_WAIT_S,
            cold=site.clickhouse,
            tell=lambda _, done, total: bar(done, total),
        )
        outcome.count = report.events
        for difference in report.differences:
            outcome.fault(str(difference))
        outcome.note = f"{sum(model.rows for model in report.models):,} rows of {len(report.models)} read models"
        bar(outcome.count, outcome.count)
        return outcome


async def _log_bytes(site: Site) -> int:
    connection = await Connection.open(site.servers.nats_url, name="proof-sizes", timeout_s=5)
    try:
        infos = [await call(connection, f"STREAM.INFO.{stream}") for stream in site.streams]
        return sum(int(info["state"]["bytes"]) for info in infos)
    finally:
        await connection.close()


async def _hot_bytes(site: Site) -> int:
    valkey = redis.asyncio.Redis.from_url(site.servers.valkey_url)
    try:
        return int((await valkey.info("memory"))["used_memory_dataset"])
    finally:
        await valkey.aclose()
