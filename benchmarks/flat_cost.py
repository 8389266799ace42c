"""What an acked message costs in ever more conversations, and after ever longer histories: it should be the same.

Cost is CPU time of all processes of the deployment, as the kernel counts it: on a shared machine that says more than
messages a second. All rows of a table are there at once and are measured by turns, so that what disturbs one round
disturbs every row; a row's figure is the median of its rounds.
"""

import asyncio
import os
import random
import secrets
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from benchmarks.appending import Appender, appending
from benchmarks.deployment import Deployment
from benchmarks.loads import adapter_spec, trouble, whole
from benchmarks.report import Figure, Pace
from runtime.bench.adapter import AdapterSpec, Op, Seat
from runtime.bench.adapters import load_adapter
from runtime.bench.driver import drive
from runtime.bench.load import Load
from runtime.bench.outcome import Outcome
from runtime.bench.running import works
from runtime.bench.sessions import Sessions, open_sessions
from runtime.client import HttpClient
from streams.ports import BATCH_MAX

CONVERSATIONS: Final = (10, 100, 1_000, 10_000)
HISTORIES: Final = (1_000, 10_000, 100_000, 1_000_000)
CREW: Final = 10  # members of a conversation, all connected and all posting
SENDERS: Final = 100  # the same in each row of conversations, so that a session's cost is the same
SIZE: Final = 100  # characters a message
ROUNDS: Final = 5  # which together last as long as another benchmark
ROUND_MIN_S: Final = 2.0  # in 0.6 s, not one message was acked once
CREATED_AT_ONCE: Final = 50
WARMED_PER_S: Final = 500  # messages of a sender's first turn, guessed low
WARM_S_MAX: Final = 120.0
QUIET: Final = 0.15  # of a core: the servers have nothing left to do
QUIET_WITHIN_S: Final = 120.0
WITHIN: Final = 0.15
# In /proc/<pid>/stat after the name in brackets: user and system time, then the same of children that have ended.
OWN, OWN_AND_ENDED = slice(11, 13), slice(11, 15)


@dataclass(frozen=True, slots=True)
class Crew:
    """Some of a row's users, who are the members of these conversations."""

    users: Sequence[str]
    tokens: Sequence[str]
    conversation_ids: Sequence[str]


@dataclass(slots=True)
class Row:
    """One row of a table, with its sessions open.

    Attributes:
        label: how many, as printed.
        spent_us: of each round, an acked message's CPU time by process.
        acked_per_s: of each round.
    """

    label: str
    crews: Sequence[Crew]
    spec: AdapterSpec
    sessions: Sessions
    rounds: int = 0
    spent_us: list[dict[str, float]] = field(default_factory=list)
    acked_per_s: list[float] = field(default_factory=list)

    @property
    def cost_us(self) -> float:
        """CPU time of an acked message, the median of the rounds."""
        return statistics.median(sum(spent.values()) for spent in self.spent_us)

    async def send(self, seconds: float, warmup_s: float) -> Outcome:
        """One round: every user has one message under way, each next one in another conversation."""
        load = Load(closed=SENDERS, seconds=seconds, warmup_s=warmup_s, size=SIZE)
        seats = _seats(self.crews)
        [plan] = works(self.spec, load, [range(len(seats))], seats, self.rounds)
        self.rounds += 1
        return await drive(plan, self.sessions)


def _seats(crews: Sequence[Crew]) -> list[Seat]:
    """Each user posts in all conversations of their crew by turns, in another order each time.

    The users of a crew begin at places far from each other, so that together they reach all of them soon.
    """
    seats: list[Seat] = []
    first = 0
    for crew in crews:
        groups = list(enumerate(crew.conversation_ids, first))
        first += len(groups)
        random.shuffle(groups)
        for number, (user, token) in enumerate(zip(crew.users, crew.tokens, strict=True)):
            start = number * len(groups) // len(crew.users)
            seats.append(Seat(user, token, dict((*groups[start:], *groups[:start]))))
    return seats


def run(deployment: Deployment, pace: Pace, *, messages: int) -> list[Figure]:
    """Both tables. Conversations first: appending a history has the server forget what it holds of all others.

    Args:
        messages: of the longest history.
    """
    return [
        uvloop.run(_over_conversations(deployment, pace)),
        uvloop.run(_over_histories(deployment, pace, [length for length in HISTORIES if length <= messages])),
    ]


async def _over_conversations(deployment: Deployment, pace: Pace) -> Figure:
    async with AsyncExitStack() as stack:
        rows = []
        for count in CONVERSATIONS:
            _say(f"{count:,} conversations")
            crews = await _created(deployment, count)
            rows.append(await stack.enter_async_context(_row(deployment, f"{count:,}", crews)))
        await _measured(deployment, rows, pace)
    return _figure(f"cost of a message over {rows[0].label} to {rows[-1].label} conversations", rows)


async def _over_histories(deployment: Deployment, pace: Pace, histories: Sequence[int]) -> Figure:
    async with AsyncExitStack() as stack:
        crews = []
        async with appending(deployment) as appender:
            for length in histories:
                _say(f"a history of {length:,}")
                crews.append(await _filled(deployment, appender, length))
        rows = [
            await stack.enter_async_context(_row(deployment, f"{length:,}", of))
            for length, of in zip(histories, crews, strict=True)
        ]
        await _measured(deployment, rows, pace)
    return _figure(f"cost of a message after {rows[0].label} to {rows[-1].label} in its ten conversations", rows)


def _users() -> list[list[str]]:
    """New users, in parts that are a crew each."""
    run = secrets.token_hex(4)
    users = [f"bench-{run}-{number}" for number in range(SENDERS)]
    return [users[start : start + CREW] for start in range(0, SENDERS, CREW)]


async def _created(deployment: Deployment, count: int) -> list[Crew]:
    """So many new conversations, spread over crews of the same new users however many there are."""
    parts = _users()
    ids: list[list[str]] = [[] for _ in parts]

    async with HttpClient(deployment.url, deployment.token(parts[0][0])) as client:

        async def create(number: int) -> None:
            owner, *others = parts[number % len(parts)]
            created = await client.request(
                "POST",
                "/v1/conversations",
                json={"kind": "group", "name": f"flat {number}", "members": others},
                token=deployment.token(owner),
            )
            ids[number % len(parts)].append(created["conversation_id"])

        for start in range(0, count, CREATED_AT_ONCE):
            await asyncio.gather(*map(create, range(start, min(start + CREATED_AT_ONCE, count))))
    return [_crew(deployment, part, of) for part, of in zip(parts, ids, strict=True)]


def _crew(deployment: Deployment, users: Sequence[str], conversation_ids: Sequence[str]) -> Crew:
    return Crew(users, [deployment.token(user) for user in users], conversation_ids)


async def _filled(deployment: Deployment, appender: Appender, length: int) -> list[Crew]:
    """A new conversation of each of new crews; so many messages in all, in the read models, and with snapshots."""
    parts = _users()
    conversations = [appender.create(f"flat {length} {number}", part) for number, part in enumerate(parts)]
    for conversation in conversations:
        for _ in range(length // len(parts)):
            appender.post(conversation)
            if len(conversation.pending_events) == BATCH_MAX:
                await appender.append([conversation])
        await appender.append([conversation])
        await appender.keep_snapshot(conversation)
        await appender.settled()
    return [_crew(deployment, part, [conversation.id]) for part, conversation in zip(parts, conversations, strict=True)]


@asynccontextmanager
async def _row(deployment: Deployment, label: str, crews: Sequence[Crew]) -> AsyncIterator[Row]:
    """A row whose users are connected, and whose conversations have each been posted in."""
    await _quiet(deployment)
    spec = adapter_spec(deployment.url, deployment)
    # Not all at once: that is a storm, which is another benchmark.
    async with open_sessions(load_adapter(spec), _seats(crews), at_once=CREW) as sessions:
        row = Row(label, crews, spec, sessions)
        conversations = sum(len(crew.conversation_ids) for crew in crews)
        acked, seconds = 0, max(1.0, conversations / WARMED_PER_S)
        while acked < conversations:
            if seconds > WARM_S_MAX:
                raise RuntimeError(f"only {acked:,} of {conversations:,} conversations could be posted in")
            acked = (await row.send(seconds, 0.0)).completed[Op.SEND]
            seconds *= 2
        yield row


async def _measured(deployment: Deployment, rows: Sequence[Row], pace: Pace) -> None:
    """Each row in each round, which begins with another row each time: a disturbance outlasts a turn."""
    _say("by turns")
    await _quiet(deployment)
    seconds = max(ROUND_MIN_S, pace.seconds / ROUNDS)
    for round_ in range(ROUNDS):
        for row in (*rows[round_ % len(rows) :], *rows[: round_ % len(rows)]):
            sending = asyncio.create_task(row.send(seconds, pace.warmup_s))
            await asyncio.sleep(pace.warmup_s)
            before = _cpu_s(deployment)
            await asyncio.sleep(seconds)
            after = _cpu_s(deployment)
            outcome = whole(await sending)
            acked = outcome.completed[Op.SEND]
            if said := trouble(outcome):
                raise RuntimeError(f"{row.label}: {acked} acked{said}")
            row.spent_us.append({name: (after[name] - before[name]) * 1e6 / acked for name in after})
            row.acked_per_s.append(acked / seconds)


async def _quiet(deployment: Deployment) -> None:
    """Wait until what was begun is over: read models, snapshots, Postgres' own housekeeping.

    Raises:
        TimeoutError: the servers are still busy, and the first rounds would be charged for it.
    """
    async with asyncio.timeout(QUIET_WITHIN_S):
        spent_s = 1.0
        while spent_s > QUIET:
            before_s = sum(_cpu_s(deployment).values())
            await asyncio.sleep(1.0)
            spent_s = sum(_cpu_s(deployment).values()) - before_s


def _cpu_s(deployment: Deployment) -> dict[str, float]:
    """CPU time so far by process: each server's with that of the processes it forked, ended ones as well."""
    spent = {}
    for name, pid in deployment.pids.items():
        if name == "riverrun":  # whose children are the servers
            spent[name] = _ticks(pid, OWN)
        else:
            children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            spent[name] = sum(_ticks(child, OWN) for child in children) + _ticks(pid, OWN_AND_ENDED)
    return {name: ticks / os.sysconf("SC_CLK_TCK") for name, ticks in spent.items()}


def _ticks(pid: int, fields: slice) -> int:
    """Some of a process' times; nothing of one that has ended since it was listed: its parent has them."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return sum(map(int, line.rpartition(")")[2].split()[fields]))


def _say(stage: str) -> None:
    Console(stderr=True).print(f"  {stage} …", highlight=False)


def _figure(name: str, rows: Sequence[Row]) -> Figure:
    """The row that is furthest from the first, against the first."""
    first = rows[0].cost_us
    furthest = max(rows[1:], key=lambda row: abs(row.cost_us / first - 1))
    return Figure(
        name=name,
        unit="µs of CPU",
        measured=furthest.cost_us,
        floor=first,
        target=f"within ±{WITHIN:.0%} of the first",
        met=abs(furthest.cost_us / first - 1) <= WITHIN,
        notes="the floor is the first row" + "".join(f"\n{line}" for line in _lines(rows)),
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    first = rows[0].cost_us
    for row in rows:
        parts = ", ".join(
            f"{name} {statistics.median(spent[name] for spent in row.spent_us):,.0f}" for name in row.spent_us[0]
        )
        rounds = " ".join(f"{sum(spent.values()):,.0f}" for spent in row.spent_us)
        yield (
            f"{row.label:>9}: {row.cost_us:,.0f} µs of CPU, {row.cost_us / first:.2f} of the first ({parts}; rounds "
            f"{rounds}); {statistics.median(row.acked_per_s):,.0f} acked msg/s"
        )
