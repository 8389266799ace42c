"""The profiles: what kind of load, on whom, and what it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from runtime.bench.adapter import Op
from runtime.bench.load import Measure
from runtime.bench.population import Population, evenly, of_sizes, one_group

MIXED_SIZES: Final = (2, 2, 3, 5, 10, 30, 100)  # most conversations are small, most deliveries of large ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A kind of load, with its defaults.

    Attributes:
        help: its first line is the short help.
        rate: what the open loop runs at when the command does not say; `None`: the closed loop is the default.
    """

    name: str
    help: str
    headline: Measure
    mix: Mapping[Op, float] = field(default_factory=lambda: {Op.SEND: 1.0})
    users: int
    groups: int = 1
    connected: int | None = None
    rate: float | None = None
    closed: int = 1
    posters: int | None = None
    sizes: tuple[int, ...] = ()

    def population(self, users: int, groups: int, connected: int | None, processes: int, seed: int) -> Population:
        """The people of a run of this profile.

        Raises:
            BenchError: such people cannot be.
        """
        if self.posters == 1:
            return one_group(users, connected or users, processes)
        if self.sizes:
            return of_sizes(users, groups, self.sizes, processes, seed)
        return evenly(users, groups, processes)


_ALL: Final = (
    Profile(
        name="send",
        help="Durable sends: everybody posts, each in one of some groups; timed from when a message was due to its "
        "ack, and to each delivery. Without --rate, 200 messages are under way and it finds out how much goes through.",
        headline=Measure.ACK,
        users=200,
        groups=20,
        closed=200,
    ),
    Profile(
        name="fanout",
        help="Fan-out: one member posts to a group of connected members; timed from when a message was due until the "
        "last of them has it. Without --rate, 4 messages are under way.",
        headline=Measure.LAST,
        users=100,
        closed=4,
        posters=1,
    ),
    Profile(
        name="large-group",
        help="One large group, of which some are connected; one posts at a steady rate; timed as in `fanout`.",
        headline=Measure.LAST,
        users=10_000,
        connected=2_000,
        rate=5.0,
        posters=1,
    ),
    Profile(
        name="reconnect",
        help="Sessions are cut without a word and opened again, beginning where they ended if the server can; timed "
        "from when one was due to be cut until the new one stands. Without --rate, 50 are at it at once.",
        headline=Measure.RECONNECT,
        mix={Op.RECONNECT: 1.0},
        users=500,
        groups=50,
        closed=50,
    ),
    Profile(
        name="idle",
        help="Sessions are held and nothing happens: what a connection costs the server in memory.",
        headline=Measure.ACK,
        mix={},
        users=1_000,
        groups=100,
    ),
    Profile(
        name="mixed",
        help="A day in short: sends (60 %), pages of history read (20 %), typing (15 %) and reconnects (5 %), in "
        f"groups of {', '.join(map(str, MIXED_SIZES[1:]))} members.",
        headline=Measure.ACK,
        mix={Op.SEND: 0.6, Op.READ: 0.2, Op.TYPING: 0.15, Op.RECONNECT: 0.05},
        users=300,
        groups=70,
        rate=200.0,
        sizes=MIXED_SIZES,
    ),
)

PROFILES: Final[Mapping[str, Profile]] = {profile.name: profile for profile in _ALL}
