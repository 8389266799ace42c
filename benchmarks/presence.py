"""What 10,000 online users cost a gateway: their presence kept, their watchers told, in share of a core."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import redis.asyncio
import uvloop

from api.presence import Presence
from api.presence_times import PresenceTimes
from benchmarks.deployment import Deployment
from benchmarks.report import Figure, Pace
from streams.jetstream import JetStream

USERS: Final = 10_000
WATCHERS: Final = 1_000
WATCHED_EACH: Final = 100
REQUESTS_PER_S: Final = 333  # each user asks for something twice a minute
RECONNECTS_PER_S: Final = 33  # each user's connection breaks every five minutes, and is back at once
TICK_S: Final = 0.1
SETTLE_S: Final = 30.0
MOST: Final = 5.0


@dataclass(eq=False)
class Session:
    """See `api.users_here.PresenceSession`."""

    user_id: str
    device_kind: str = "mobile"
    pushed: int = 0

    def push_signal(self, payload: bytes) -> None:
        self.pushed += 1


@dataclass(frozen=True, slots=True)
class Costs:
    """Shares of a core, in percent."""

    alone: float
    watched: float
    floor: float
    begun_s: float


def run(deployment: Deployment, pace: Pace) -> Figure:
    """One Presence object over NATS and Valkey; the floor writes the same changes and leases raw, in pipelines."""
    costs = uvloop.run(_costs(deployment, pace))
    return Figure(
        name=f"presence of {USERS:,} online users",
        unit="% of a core",
        measured=costs.watched,
        floor=costs.floor,
        target=f"≤ {MOST:g} % of a core",
        met=costs.watched <= MOST,
        notes=f"{REQUESTS_PER_S} requests/s and {RECONNECTS_PER_S} reconnects/s among them; {WATCHERS:,} sessions "
        f"watch {WATCHED_EACH} users each, so that all are watched; without watchers {costs.alone:.2g} %. "
        f"Writing all anew after a flush takes {costs.begun_s * 1000:.0f} ms of a core. "
        "The floor has no notices, no reading and no pushes",
    )


async def _costs(deployment: Deployment, pace: Pace) -> Costs:
    prefix = f"bench:{secrets.token_hex(4)}:"
    valkey = redis.asyncio.Redis.from_url(deployment.valkey_url)
    jetstream = await JetStream.connect(deployment.nats_url, name="riverrun-bench")
    presence = Presence(valkey, jetstream.bus, _everybody, prefix=prefix)
    sessions = [Session(f"user-{number}") for number in range(USERS)]
    for session in sessions:
        presence.connected(session)
    began_s = time.process_time()
    serving = asyncio.create_task(presence.run())
    try:
        await _until_online(presence, sessions)
        begun_s = time.process_time() - began_s
        driving = _Driving(presence, sessions)
        alone = await _share(driving.tick, pace)
        for number, session in enumerate(sessions[:WATCHERS]):
            users = [sessions[(number * WATCHED_EACH + i) % USERS].user_id for i in range(WATCHED_EACH)]
            await presence.watch(session, users)
        watched = await _share(driving.tick, pace)
        floor = await _share(_Raw(valkey, prefix).tick, pace)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        async for key in valkey.scan_iter(f"{prefix}*", count=1000):
            await valkey.delete(key)
        await jetstream.close()
        await valkey.aclose()
    return Costs(alone, watched, floor, begun_s)


async def _everybody(_viewer_id: str, others: list[str]) -> set[str]:
    return set(others)


async def _until_online(presence: Presence, sessions: list[Session]) -> None:
    give_up_at_s = time.monotonic() + SETTLE_S
    last = [session.user_id for session in sessions[-2:]]
    while any(view.status != "online" for view in (await presence.of("bench", last)).users):
        if time.monotonic() > give_up_at_s:
            raise RuntimeError(f"the users are not online within {SETTLE_S:.0f} s")
        await asyncio.sleep(0.05)


async def _share(tick: Callable[[], Awaitable[None]], pace: Pace) -> float:
    """This process's share of a core while something is done every `TICK_S`."""
    await _tick_for(tick, pace.warmup_s)
    cpu_s, wall_s = time.process_time(), time.monotonic()
    await _tick_for(tick, pace.seconds)
    return 100 * (time.process_time() - cpu_s) / (time.monotonic() - wall_s)


async def _tick_for(tick: Callable[[], Awaitable[None]], seconds: float) -> None:
    began_s = time.monotonic()
    for number in range(1, round(seconds / TICK_S) + 1):
        await tick()
        await asyncio.sleep(max(0.0, began_s + number * TICK_S - time.monotonic()))


class _Driving:
    """What a gateway calls for its sessions."""

    def __init__(self, presence: Presence, sessions: list[Session]) -> None:
        self._presence = presence
        self._asking = itertools.cycle(sessions)
        # Not those that watch: what they watch would end with their connection.
        self._breaking = itertools.cycle(sessions[WATCHERS:])
        self._broken: list[Session] = []

    async def tick(self) -> None:
        for session in self._broken:
            self._presence.connected(session)
        for session in itertools.islice(self._asking, round(REQUESTS_PER_S * TICK_S)):
            self._presence.active(session)
        self._broken = list(itertools.islice(self._breaking, round(RECONNECTS_PER_S * TICK_S)))
        for session in self._broken:
            self._presence.disconnected(session)


class _Raw:
    """The same writes, barely: two a reconnect, and a lease an interval."""

    def __init__(self, valkey: "redis.asyncio.Redis", prefix: str) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._users = itertools.cycle(range(USERS))
        self._ticks = 0

    async def tick(self) -> None:
        self._ticks += 1
        pipeline = self._valkey.pipeline(transaction=False)
        for user in itertools.islice(self._users, 2 * round(RECONNECTS_PER_S * TICK_S)):
            pipeline.hset(f"{self._prefix}raw:{user}", "gateway", "1")
        if self._ticks % round(PresenceTimes().refresh_s / TICK_S) == 0:
            pipeline.zadd(f"{self._prefix}raw", {"gateway": time.time()})
        await pipeline.execute()
