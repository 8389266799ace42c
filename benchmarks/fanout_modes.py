"""`python -m benchmarks.fanout_modes`: what write fan-out and read fan-out cost, and where they cost the same.

Two deployments, one that only writes and one that only reads (`RIVERRUN_FANOUT_LIMIT`), are given the same load, one
after the other. Cost is CPU time of the Riverrun process and of nats-server, as the kernel counts it. Writing pays for
each message and member; reading pays for each conversation that a gateway begins to listen to, and nothing for size.
"""

import asyncio
import json
import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import Deployment, deployed
from benchmarks.floors import RawNats
from benchmarks.loads import adapter_spec, group, trouble, whole
from runtime.bench.adapters import load_adapter
from runtime.bench.driver import drive
from runtime.bench.errors import Worthless
from runtime.bench.load import Load, Measure
from runtime.bench.machine import machine
from runtime.bench.running import works
from runtime.bench.server import cpu_seconds
from runtime.bench.sessions import open_sessions
from runtime.bench.socket import close_sockets, open_sockets
from runtime.client import HttpClient

LIMITS: Final = {"reading": "0", "writing": "100000"}
SIZES: Final = (3, 10, 50, 100, 500, 2_000)
DURABLE_SIZES: Final = (3, 50, 500, 5_000)
DURABLE_MESSAGES: Final = 50
QUIET_USERS: Final = 50
QUIET_CONVERSATIONS: Final = 20  # of each of them
MESSAGES_PER_S: Final = 150  # well below what one sender can, so that batches stay the same
DELIVERIES_PER_S: Final = 10_000
COUNTED: Final = ("riverrun", "nats-server")
BETWEEN_S: Final = 2.0  # for what was begun to be over: projections, snapshots
ARRIVAL_S: Final = 60.0
LIFETIMES: Final = (0.1, 1, 10, 100)  # messages in a conversation while a gateway listens to it once


class Costs(msgspec.Struct, frozen=True):
    """What one way costs. CPU in microseconds.

    Attributes:
        message: by size of the group, all members connected, one message.
        joining: one conversation of a session that begins, alone in it on its gateway.
        durable: by size of the group, events stored for one message.
    """

    message: dict[int, float]
    joining: float
    durable: dict[int, float]


def main(
    *,
    seconds: Annotated[float, typer.Option(help="Of load for each size and way.")] = 10.0,
    quick: Annotated[bool, typer.Option(help="Small groups, 2 seconds each; for a look.")] = False,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks/results/fanout_modes.json"),
) -> None:
    """Measure both ways, about four minutes in all, and print them side by side."""
    sizes, durable_sizes = (SIZES[:4], DURABLE_SIZES[:2]) if quick else (SIZES, DURABLE_SIZES)
    costs = {}
    for way, limit in LIMITS.items():
        Console(stderr=True).print(f"{way} …", highlight=False)
        with deployed({"RIVERRUN_FANOUT_LIMIT": limit}) as deployment:
            measure = _Measure(deployment, 2.0 if quick else seconds)
            costs[way] = Costs(
                joining=uvloop.run(measure.joining()),
                message={size: uvloop.run(measure.message(size)) for size in sizes},
                durable={size: uvloop.run(measure.durable(size)) for size in durable_sizes},
            )
    _show(costs["reading"], costs["writing"])
    output.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": machine(), **{way: msgspec.to_builtins(cost, str_keys=True) for way, cost in costs.items()}}
    output.write_text(json.dumps(whole, indent=2) + "\n")


class _Measure:
    """Load on one deployment, and what its processes spent on it."""

    def __init__(self, deployment: Deployment, seconds: float) -> None:
        self._deployment = deployment
        self._seconds = seconds

    async def message(self, size: int) -> float:
        """One message to a group, all of whose members are connected."""
        seats = await group(self._deployment, size)
        load = Load(
            rate=min(MESSAGES_PER_S, DELIVERIES_PER_S / size),
            seconds=self._seconds,
            warmup_s=0.0,
            headline=Measure.LAST,
            posters=1,
            drain_s=ARRIVAL_S,
        )
        spec = adapter_spec(self._deployment.url, self._deployment)
        [plan] = works(spec, load, [range(size)], seats)
        async with open_sessions(load_adapter(spec), seats) as sessions:
            await asyncio.sleep(BETWEEN_S)
            before_us = self._cpu_us()
            outcome = whole(await drive(plan, sessions))
            spent_us = self._cpu_us() - before_us
        if said := trouble(outcome):
            raise Worthless(f"{size} members{said}")
        return spent_us / outcome.due

    async def joining(self) -> float:
        """A session's beginning, of users with many conversations nobody else is connected in; for each of those."""
        url, run = self._deployment.url, secrets.token_hex(4)
        tokens = [self._deployment.token(f"quiet-{run}-{user}") for user in range(QUIET_USERS)]
        async with HttpClient(url, tokens[0]) as client:
            for token in tokens:
                for number in range(QUIET_CONVERSATIONS):
                    body = {"kind": "group", "members": [f"absent-{run}-{number}", f"away-{run}-{number}"]}
                    await client.request("POST", "/v1/conversations", json=body, token=token)
        await asyncio.sleep(BETWEEN_S)
        before_us = self._cpu_us()
        sockets = await open_sockets(url, tokens)
        await asyncio.sleep(BETWEEN_S)  # what a gateway does after it has answered counts too
        spent_us = self._cpu_us() - before_us
        await close_sockets(sockets)
        return spent_us / (QUIET_USERS * QUIET_CONVERSATIONS)

    async def durable(self, size: int) -> float:
        """Events stored in all streams for each message to a group."""
        [seat, *_] = await group(self._deployment, size)
        nats = RawNats(self._deployment.nats_url)
        try:
            before = _stored(nats)
            async with HttpClient(self._deployment.url, seat.credential) as client:
                for number in range(DURABLE_MESSAGES):
                    body = {"client_msg_id": f"m{number}", "body": {"type": "text", "text": "durable"}}
                    await client.request("POST", f"/v1/conversations/{seat.groups[0]}/messages", json=body)
            await asyncio.sleep(BETWEEN_S)
            return (_stored(nats) - before) / DURABLE_MESSAGES
        finally:
            nats.close()

    def _cpu_us(self) -> float:
        """CPU time of the counted processes so far, user and system."""
        return sum(cpu_seconds({name: self._deployment.pids[name] for name in COUNTED}).values()) * 1e6


def _stored(nats: RawNats) -> int:
    streams = nats.api("STREAM.LIST", {"offset": 0})["streams"]
    return sum(stream["state"]["last_seq"] for stream in streams if not stream["config"]["name"].startswith("KV_"))


def _slope_us(reading: Costs, writing: Costs) -> float:
    """What writing costs more for each member: the least squares line through nothing at no members."""
    pairs = [(size, writing.message[size] - reading.message[size]) for size in reading.message]
    return sum(size * more for size, more in pairs) / sum(size * size for size, _ in pairs)


def _show(reading: Costs, writing: Costs) -> None:
    console = Console()
    about = Table("machine", "")
    for key, value in machine().items():
        about.add_row(key, value)
    console.print(about)
    messages = Table("members", "reading", "writing", "writing more, a member", title="CPU a message, µs")
    for size, cost_us in reading.message.items():
        more_us = writing.message[size] - cost_us
        messages.add_row(f"{size:,}", f"{cost_us:,.0f}", f"{writing.message[size]:,.0f}", f"{more_us / size:,.2f}")
    console.print(messages)
    durable = Table("members", "reading", "writing", title="durable writes a message")
    for size, stored in reading.durable.items():
        durable.add_row(f"{size:,}", f"{stored:g}", f"{writing.durable[size]:g}")
    console.print(durable)
    listening_us, slope_us = reading.joining - writing.joining, _slope_us(reading, writing)
    console.print(
        f"a session's conversation: {reading.joining:,.0f} µs reading, {writing.joining:,.0f} µs writing; listening to "
        f"one costs {listening_us:,.0f} µs. A member written to costs {slope_us:,.2f} µs a message.",
        highlight=False,
    )
    if listening_us <= 0 or slope_us <= 0:
        console.print("one of the two is lost in the noise: take a quieter machine, or more --seconds")
        return
    for heard in LIFETIMES:
        console.print(
            f"with {heard:g} messages for each time that a gateway listens to a conversation, both cost the same at "
            f"{listening_us / (slope_us * heard):,.0f} members",
            highlight=False,
        )


if __name__ == "__main__":
    typer.run(main)
