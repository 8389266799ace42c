"""What is done to a deployment, when, and to whom: a pure function of case and seed, so that it can be repeated.

Who the leader of a stream is cannot be drawn, so a step names what is to be hit as it is known beforehand: `leader of
CONV-2`. What it was in the end is in the report.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WRITERS: Final = ("writer-0", "writer-1")
NATS: Final = ("nats-0", "nats-1", "nats-2")
CROWD: Final = 2_000
NATS_WINDOW_S: Final = 125.0  # its window of duplicates is two minutes
SOON_S: Final = (0.5, 3.0)  # of load before the first fault, and between what comes in quick succession
APART_S: Final = (6.0, 10.0)  # between faults that are to be recovered from first


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    Attributes:
        after_s: how long after the one before it has ended.
        for_s: how long it lasts; 0 where it is over at once.
    """

    after_s: float
    what: str
    whom: str = ""
    for_s: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.for_s:g} s" if self.for_s else ""
        return f"{self.after_s:.2f} s later {self.what}{' ' if self.whom else ''}{self.whom}{lasting}"


class Draw:
    """Draws the steps of a case.

    Args:
        scale: 1 for the long form; a smaller one makes fewer rounds and shorter outages.
    """

    def __init__(self, case: str, seed: int, scale: float, partitions: int) -> None:
        self._random = random.Random(f"{seed}/{case}/steps")
        self._scale = scale
        self._partitions = partitions

    def rounds(self, count: int) -> range:
        """So many rounds in the long form, at least one."""
        return range(max(1, round(count * self._scale)))

    def lasting(self, seconds: float, *, at_least: float) -> float:
        """So long in the long form."""
        return max(at_least, seconds * min(1.0, self._scale))

    def soon(self, what: str, whom: str = "", for_s: float = 0.0) -> Step:
        """A fault at a random point of the next seconds."""
        return Step(self._random.uniform(*SOON_S), what, whom, for_s)

    def later(self, what: str, whom: str = "", for_s: float = 0.0) -> Step:
        """A fault when the one before should be recovered from."""
        return Step(self._random.uniform(*APART_S), what, whom, for_s)

    def one_of(self, names: Sequence[str]) -> str:
        """Any of several."""
        return self._random.choice(names)

    def count(self, number: int, *, at_least: int) -> int:
        """So many in the long form."""
        return max(at_least, round(number * min(1.0, self._scale)))

    def partition(self) -> str:
        """Any of them."""
        return str(self._random.randrange(self._partitions))

    def leader(self) -> str:
        """The leader of a stream of conversations."""
        return f"leader of CONV-{self.partition()}"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the fault matrix.

    Attributes:
        about: what it does, in words.
        steps: draws what is done.
        needs_disks: whether it needs disks of the deployment's own.
    """

    name: str
    about: str
    steps: Callable[[Draw], list[Step]]
    needs_disks: bool = False

    def schedule(self, seed: int, *, scale: float, partitions: int) -> list[Step]:
        """What is done, in its order."""
        return self.steps(Draw(self.name, seed, scale, partitions))


def _killed(names: Sequence[str], rounds: int = 3) -> Callable[[Draw], list[Step]]:
    def steps(draw: Draw) -> list[Step]:
        first = draw.soon("kill", draw.one_of(names))
        return [first, *(draw.later("kill", draw.one_of(names)) for _ in draw.rounds(rounds)[1:])]

    return steps


def _leader_killed(draw: Draw) -> list[Step]:
    return [draw.soon("kill", draw.leader()), *(draw.later("kill", draw.leader()) for _ in draw.rounds(2)[1:])]


def _all_nats_killed(draw: Draw) -> list[Step]:
    everyone = "+".join(NATS)
    return [draw.soon("kill", everyone), *(draw.later("kill", everyone) for _ in draw.rounds(2)[1:])]


def _power_lost(draw: Draw) -> list[Step]:
    return [draw.soon("lose power"), *(draw.later("lose power") for _ in draw.rounds(2)[1:])]


def _writer_paused(draw: Draw) -> list[Step]:
    pause_s = draw.lasting(15, at_least=6)
    first = draw.soon("pause", draw.one_of(WRITERS), pause_s)
    return [first, *(draw.later("pause", draw.one_of(WRITERS), pause_s) for _ in draw.rounds(2)[1:])]


def _postgres_down(draw: Draw) -> list[Step]:
    frozen = draw.soon("pause", "postgres", draw.lasting(60, at_least=4))
    return [frozen, draw.later("stop", "postgres", draw.lasting(20, at_least=3))]


def _valkey_down(draw: Draw) -> list[Step]:
    return [
        draw.soon("flush", "valkey"),
        draw.soon("stop", "valkey", draw.lasting(10, at_least=2)),
        draw.soon("flush", "valkey"),
    ]


def _one_way(draw: Draw) -> list[Step]:
    for_s = draw.lasting(10, at_least=4)
    return [
        draw.soon("hold what NATS says to", draw.one_of(WRITERS), for_s),
        draw.later("hold what is said to NATS by", draw.one_of(WRITERS), for_s),
    ]


def _both_ways(draw: Draw) -> list[Step]:
    for_s = draw.lasting(10, at_least=4)
    return [
        draw.soon("hold both ways of", draw.one_of(WRITERS), for_s),
        draw.later("cut off", draw.one_of(WRITERS), for_s),
    ]


def _nats_disk_full(draw: Draw) -> list[Step]:
    for_s = draw.lasting(8, at_least=3)
    return [
        draw.soon("fill the disk of", draw.one_of(NATS), for_s),
        draw.later("fill the disk of", "+".join(NATS), for_s),
    ]


def _postgres_disk_full(draw: Draw) -> list[Step]:
    return [draw.soon("fill the disk of", "postgres", draw.lasting(10, at_least=4))]


def _clock(draw: Draw) -> list[Step]:
    whom, other = (WRITERS if draw.one_of(("", "other")) else WRITERS[::-1])[:2]
    for_s = draw.lasting(6, at_least=3)
    return [
        draw.soon("set an hour ahead the clock of", whom, for_s),
        draw.soon("kill", whom),  # whoever takes over has the right time, which is an hour before the newest event's
        draw.later("set an hour back the clock of", other, for_s),
        draw.soon("kill", other),
    ]


def _same_again(draw: Draw) -> list[Step]:
    return [
        draw.soon("send twins"),
        draw.soon("fill a conversation"),
        draw.soon("send again"),
        draw.soon("kill", "+".join(WRITERS)),
        draw.soon("send again"),
        draw.soon("send again without", "postgres", draw.lasting(8, at_least=4)),
        Step(draw.lasting(NATS_WINDOW_S, at_least=2), "send again"),
    ]


def _poison(draw: Draw) -> list[Step]:
    return [
        draw.soon("refuse a message"),
        draw.soon("garble a partition", draw.partition()),
        draw.soon("kill", "+".join(WRITERS)),  # who starts anew reads the garbage
        draw.later("replay"),
    ]


def _reconnect(draw: Draw) -> list[Step]:
    both = "gateway-0+gateway-1"
    steps = [draw.soon("gather a crowd of", str(draw.count(CROWD, at_least=100)))]
    for _ in draw.rounds(2):
        steps += [draw.soon("kill", both), Step(0, "wait for the crowd")]
    return [*steps, Step(0, "dismiss the crowd")]


def _medley(draw: Draw) -> list[Step]:
    return [
        draw.soon("kill", draw.one_of(("gateway-0", "gateway-1"))),
        draw.soon("kill", draw.one_of(WRITERS)),
        draw.soon("kill", draw.one_of(("projector-0+fanout-1", "projector-1+fanout-0"))),
        draw.later("hold both ways of", draw.one_of(WRITERS), 4),
        draw.soon("flush", "valkey"),
        draw.soon("pause", "postgres", 3),
        draw.soon("kill", draw.leader()),
        draw.later("kill", "+".join(NATS)),
    ]


# The short form, of the test suite: what needs neither root nor much time, one after the other under one load.
MEDLEY: Final = Case("medley", "one of each kind, in quick succession", _medley)

CASES: Final = {
    case.name: case
    for case in (
        Case("writer-killed", "kill -9 of a writer", _killed(WRITERS)),
        Case("gateway-killed", "kill -9 of a gateway", _killed(("gateway-0", "gateway-1"))),
        Case("projector-killed", "kill -9 of a projector", _killed(("projector-0", "projector-1"))),
        Case("fanout-killed", "kill -9 of a fan-out", _killed(("fanout-0", "fanout-1"))),
        Case("writer-paused", "SIGSTOP of a writer, SIGCONT when another has its partitions", _writer_paused),
        Case("nats-killed", "kill -9 of one nats-server", _killed(NATS, 2)),
        Case("leader-killed", "kill -9 of the leader of a stream", _leader_killed),
        Case("nats-all-killed", "kill -9 of all three nats-servers at once", _all_nats_killed),
        Case("power-lost", "power cut: everything stops, what was not flushed is gone", _power_lost, needs_disks=True),
        Case("postgres-down", "Postgres frozen, then stopped", _postgres_down),
        Case("valkey-down", "Valkey flushed, stopped, flushed", _valkey_down),
        Case("partition-one-way", "one direction between a writer and NATS held back, then the other", _one_way),
        Case("partition", "both directions held back; then cut, with connections refused", _both_ways),
        Case("nats-disk-full", "no room for one nats-server, then for all", _nats_disk_full, needs_disks=True),
        Case("postgres-disk-full", "no room for Postgres", _postgres_disk_full, needs_disks=True),
        Case("same-again", "commands repeated within and beyond every window of memory", _same_again),
        Case("reconnect", "both gateways killed under 2,000 clients, which all come back at once", _reconnect),
        Case("clock-wrong", "a writer's clock an hour ahead, another's an hour back, jumping as they run", _clock),
        # The last: the garbage stays in the log.
        Case("poison", "a message that a read model refuses, bytes that are no event; replayed", _poison),
    )
}
