"""What 10,000 idle connections cost a gateway: memory of each, and the work of its beginning."""

import time
from dataclasses import dataclass
from typing import Final

import uvloop

from benchmarks.appending import appending
from benchmarks.bare_sockets import bare_sockets_server
from benchmarks.deployment import Deployment
from benchmarks.gateway import GatewayProcess, Memory, cpu_s, gateway
from benchmarks.guests import guests
from benchmarks.report import Figure, Pace
from benchmarks.town import SIZES, Town

CONNECTIONS: Final = 10_000
FIRST: Final = 200  # opened and closed before: what a process needs once is not a connection's
REST_S: Final = 12.0  # after which what was begun is over: two audits, a lease of presence
MOST_KIB: Final = 40.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one connection."""

    rss_kib: float
    pss_kib: float
    cpu_us: float


def run(deployment: Deployment, pace: Pace) -> Figure:
    """Each connection is a user's, who is in a few conversations; the floor is as many connections of nobody."""
    connections = CONNECTIONS // 5 if pace.seconds < 5 else CONNECTIONS
    tokens = uvloop.run(_tokens(deployment, connections))
    with gateway(deployment) as process:
        cost = _cost(process, tokens)
    with bare_sockets_server() as process:
        bare = _cost(process, tokens)
    return Figure(
        name=f"memory of an idle connection, {connections:,} of them",
        unit="KiB",
        measured=cost.rss_kib,
        floor=bare.rss_kib,
        target=f"≤ {MOST_KIB:g} KiB",
        met=cost.rss_kib <= MOST_KIB,
        notes=f"RSS; PSS {cost.pss_kib:.1f} KiB (floor {bare.pss_kib:.1f}). Each user is in {len(SIZES)} "
        f"conversations, of {', '.join(map(str, SIZES))} members. A session's beginning takes the gateway's process "
        f"{cost.cpu_us:,.0f} µs (floor {bare.cpu_us:,.0f})",
    )


async def _tokens(deployment: Deployment, users: int) -> list[str]:
    async with appending(deployment) as appender:
        town = Town(deployment, appender, users=users)
        await town.build()
        return town.tokens


def _cost(process: GatewayProcess, tokens: list[str]) -> Cost:
    with guests(process.url, tokens[:FIRST]) as first:
        first[0].tell("close")
        first[0].answer()
    time.sleep(REST_S)
    before, began_s = Memory.of(process.pid), cpu_s(process.pid)
    with guests(process.url, tokens):
        spent_s = cpu_s(process.pid) - began_s
        time.sleep(REST_S)
        after = Memory.of(process.pid)
    return Cost(
        (after.rss_kib - before.rss_kib) / len(tokens),
        (after.pss_kib - before.pss_kib) / len(tokens),
        spent_s * 1e6 / len(tokens),
    )
