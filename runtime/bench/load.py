"""What load a run makes: which operations, when they are due, for how long."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.bench.adapter import Op


class Arrival(StrEnum):
    """When operations of the open loop are due: evenly spaced, or at random like the acts of people who know nothing
    of each other."""

    CONSTANT = "constant"
    POISSON = "poisson"


class Measure(StrEnum):
    """What is timed, each from when an operation was due."""

    ACK = "send → ack"
    DELIVERY = "send → delivery"
    LAST = "send → last delivery"
    READ = "read → page"
    RECONNECT = "reconnect → session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load.

    Attributes:
        mix: the operations and their weights; none of any: sessions are held, and that is all.
        rate: operations a second of the open loop, all processes together; `None` for the closed one.
        closed: operations under way at once in the closed loop, all processes together.
        seconds: measured, after `warmup_s` of load that counts for nothing.
        headline: the measure that the profile is about; the closed loop goes on when that is complete.
        posters: of the first so many users everybody posts; `None`: all do.
        drain_s: how long at most to wait for the answers and deliveries still out when the time is up.
    """

    mix: Mapping[Op, float] = field(default_factory=lambda: {Op.SEND: 1.0})
    rate: float | None = None
    closed: int = 1
    arrival: Arrival = Arrival.CONSTANT
    seconds: float = 10.0
    warmup_s: float = 2.0
    size: int = 100
    seed: int = 1
    processes: int = 1
    headline: Measure = Measure.ACK
    posters: int | None = None
    drain_s: float = 10.0

    def dues_us(self, process: int, active: int) -> Iterator[float]:
        """When one process's operations are due, in microseconds from the beginning.

        Args:
            process: its number among the `active` ones, which share the rate.
        """
        if self.rate is None:
            return
        gap_us = 1e6 * active / self.rate
        if self.arrival is Arrival.CONSTANT:
            due_us = gap_us * process / active
            while True:
                yield due_us
                due_us += gap_us
        draw = random.Random(f"{self.seed}/{process}")  # noqa: S311  # repeatable on purpose
        due_us = 0.0
        while True:
            due_us += draw.expovariate(1 / gap_us)
            yield due_us
