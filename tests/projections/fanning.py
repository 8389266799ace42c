"""Running the fan-out in tests: a read model that stands where a test wants it, and what is heard."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from psycopg_pool import AsyncConnectionPool

from domain.events import ConversationCreated, Event, MemberAdded, MemberRemoved, MessagePosted
from projections.audience import MEMBERS_MAX
from projections.fanout import READER, FanoutWorker
from streams import subjects
from streams.codec import decode
from streams.ports import Bus, Log, Signal
from tests.projections.history import STREAM

WAIT_S = 20.0


@dataclass
class Group:
    """A conversation as folding its events one by one makes it."""

    kind: str = ""
    version: int = 0  # of the newest event that is not a message
    members: set[str] = field(default_factory=set)


def _fold(folded: dict[str, Group], event: Event) -> Group:
    group = folded.setdefault(event.originator_id, Group())
    match event:
        case ConversationCreated():
            group.kind, group.members = event.kind, set(event.members)
        case MemberAdded():
            group.members.add(event.user_id)
        case MemberRemoved():
            group.members.discard(event.user_id)
        case _:
            pass
    if not isinstance(event, MessagePosted):
        group.version = event.originator_version
    return group


async def groups(log: Log, up_to: int) -> dict[str, Group]:
    """All conversations of the log as of a sequence."""
    folded: dict[str, Group] = {}
    async for delivery in log.read(STREAM, up_to_sequence=up_to):
        _fold(folded, decode(delivery))
    return folded


async def expected(log: Log, limit: int, *, after: int = 0) -> list[tuple[str, int]]:
    """What is to be published, as `told` gives it: by the rule as the decision record has it, event by event."""
    published: list[tuple[str, int]] = []
    folded: dict[str, Group] = {}
    async for delivery in log.read(STREAM):
        event = decode(delivery)
        members = _fold(folded, event).members
        concerned: set[str] = set()
        if isinstance(event, ConversationCreated):
            concerned = set(event.members)
        elif isinstance(event, MemberAdded | MemberRemoved):
            concerned = {event.user_id}
        if len(members) <= limit:
            concerned |= members
        if delivery.sequence > after:
            published += sorted((subjects.live_user(user_id), delivery.sequence) for user_id in concerned)
    return published


def told(heard: Iterable[Signal]) -> list[tuple[str, int]]:
    """Subjects and sequences in the order of the log; what is told of one event at once may be in any order."""
    pairs = [(signal.subject, int(signal.headers[subjects.NATS_SEQUENCE])) for signal in heard]
    sequences = [sequence for _, sequence in pairs]
    assert sequences == sorted(sequences)
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


async def stand(pool: AsyncConnectionPool, log: Log, sequence: int) -> None:
    """Have the read model of conversations as of a sequence, whatever it was before."""
    folded = await groups(log, sequence)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("TRUNCATE checkpoints, conversations, members")
        await connection.execute("INSERT INTO checkpoints VALUES ('conversations', 0, %s)", (sequence,))
        for conversation_id, group in folded.items():
            await connection.execute(
                "INSERT INTO conversations VALUES (%s, %s, NULL, '{}', 'ann', now(), now(), %s, %s)",
                (int(conversation_id), group.kind, len(group.members), group.version),
            )
            for user_id in group.members:
                await connection.execute(
                    "INSERT INTO members VALUES (%s, %s, 'member', 1, now(), 1, 1, 0)", (int(conversation_id), user_id)
                )


async def place(log: Log, sequence: int) -> None:
    """Have a fan-out go on after a sequence when it is started."""
    await (await log.consume(STREAM, READER, after_sequence=sequence)).close()


@asynccontextmanager
async def fanning_out(
    log: Log, bus: Bus, pool: AsyncConnectionPool, *, limit: int = 100, members_max: int = MEMBERS_MAX
) -> AsyncIterator[list[Signal]]:
    """A running fan-out, and what users' gateways hear."""
    heard: list[Signal] = []
    subscription = await bus.subscribe("live.user.>", heard.append)
    worker = FanoutWorker(log, bus, pool, partition=0, limit=limit, members_max=members_max)
    await worker.position()  # where it begins, before the test appends
    task = asyncio.create_task(worker.run())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await subscription.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def done(log: Log, sequence: int) -> None:
    """Wait until the fan-out has acknowledged a sequence; in memory, everything published is heard a turn later."""
    async with asyncio.timeout(WAIT_S):
        while (await log.place(STREAM, READER) or 0) < sequence:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0)
