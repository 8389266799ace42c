"""A run from beginning to end: people are made once; each round opens sessions, makes its load, has an outcome."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from runtime.bench import processes
from runtime.bench.adapter import Adapter, AdapterSpec, Seat
from runtime.bench.adapters import load_adapter, require
from runtime.bench.driver import Work, work
from runtime.bench.load import Load
from runtime.bench.outcome import Outcome, of_processes
from runtime.bench.population import Population
from runtime.bench.report import Report, report
from runtime.bench.server import resident_bytes


@dataclass(slots=True)
class Prepared:
    """A server with its people, ready for rounds of load.

    Attributes:
        about: what the server says of itself.
        memory_bytes: resident, of the server's processes, before the first session.
    """

    spec: AdapterSpec
    load: Load
    population: Population
    seats: list[Seat]
    adapter: Adapter
    about: dict[str, str]
    memory_bytes: dict[str, int]
    rounds: int = 0

    def round(self) -> Outcome:
        """Open the sessions, make the load, close them.

        Raises:
            BenchError, ClientError: a session could not be opened, or a process failed.
        """
        plans = works(self.spec, self.load, self.population.connected, self.seats, self.rounds)
        self.rounds += 1
        return of_processes(processes.run(work, plans))

    def report(self, outcome: Outcome) -> Report:
        """The figures of an outcome of its rounds."""
        return report(
            outcome,
            self.load,
            adapter=self.spec.name,
            server=self.about,
            ack=self.adapter.ack,
            memory_before=self.memory_bytes,
        )

    def tidy(self) -> None:
        """Take away what was made."""
        uvloop.run(self.adapter.tidy())


def works(
    spec: AdapterSpec, load: Load, connected: Sequence[Sequence[int]], seats: Sequence[Seat], round_: int = 0
) -> list[Work]:
    """What each process does.

    Args:
        connected: the users whose sessions each process holds.
        seats: by user.
    """
    posting = [
        len(users) if load.posters is None else sum(user < load.posters for user in users) for users in connected
    ]
    active = sum(count > 0 for count in posting)
    return [
        Work(spec, load, [seats[user] for user in users], count, active, process, round_, measures_server=process == 0)
        for process, (users, count) in enumerate(zip(connected, posting, strict=True))
    ]


def prepare(spec: AdapterSpec, load: Load, population: Population) -> Prepared:
    """Make the people of a run on a server.

    Raises:
        BenchError, ClientError: the server cannot be reached, refuses, or cannot do what is asked.
    """
    adapter = load_adapter(spec)
    require(spec.name, adapter, load.mix)

    async def made() -> tuple[dict[str, str], list[Seat]]:
        about = await adapter.about()
        return about, await adapter.prepare(secrets.token_hex(4), population.users, population.groups)

    about, seats = uvloop.run(made())
    return Prepared(spec, load, population, seats, adapter, about, resident_bytes(adapter.pids()))
