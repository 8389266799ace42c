"""The fan-out: who is told of which event, whatever is known of the members when it begins."""

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from prometheus_client import REGISTRY
from psycopg_pool import AsyncConnectionPool

from domain.conversations import Conversation
from projections.fanout import BEHIND_MAX
from streams import subjects
from streams.codec import decode, decode_parts
from streams.memory import MemoryBus, MemoryLog
from streams.ports import Record
from tests.projections.fanning import done, expected, fanning_out, place, stand, told, until
from tests.projections.history import STREAM, History, append


async def test_up_to_the_limit_every_member_is_told_of_every_event(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with fanning_out(log, MemoryBus(), pool, limit=3) as heard:
        history = History(log)
        conversation = history.create("ann", "bob.b")
        history.post(conversation, "ann", "for both")
        history.change(conversation, "ann", add=["cid"])
        history.change(conversation, "ann", remove=["bob.b"])
        history.post(conversation, "cid", "for two")
        await done(log, await history.append())
    kinds = [signal.headers[subjects.TYPE] for signal in heard]
    assert kinds == [
        *["conversation.created", "conversation.created", "message.posted", "message.posted"],
        *["member.added", "member.added", "member.added", "member.removed", "member.removed", "member.removed"],
        *["message.posted", "message.posted"],
    ]
    assert told(heard) == await expected(log, 3)
    assert ("live.user.bob%2Eb", 4) in told(heard)  # the last thing they hear: that they are out
    assert ("live.user.bob%2Eb", 5) not in told(heard)


async def test_above_the_limit_only_who_was_put_in_or_out_is_told(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with fanning_out(log, MemoryBus(), pool, limit=1) as heard:
        history = History(log)
        conversation = history.create("ann", "bob.b")
        history.post(conversation, "ann", "not for here")
        history.change(conversation, "ann", add=["cid"], remove=["bob.b"])
        await done(log, await history.append())
        assert [(signal.subject, signal.headers[subjects.TYPE]) for signal in heard] == [
            (subjects.live_user("ann"), "conversation.created"),
            (subjects.live_user("bob.b"), "conversation.created"),
            (subjects.live_user("cid"), "member.added"),
            (subjects.live_user("bob.b"), "member.removed"),
        ]


async def test_a_signal_is_the_event_as_republish_would_give_it(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    async with fanning_out(log, MemoryBus(), pool) as heard:
        history = History(log)
        history.create("ann", "bob")
        sequence = await history.append()
        await until(lambda: len(heard) == 2)
    stored = [delivery async for delivery in log.read(STREAM)][-1]
    headers = heard[0].headers
    assert (headers[subjects.NATS_STREAM], headers[subjects.NATS_SEQUENCE]) == (STREAM, str(sequence))
    assert headers[subjects.NATS_SUBJECT] == stored.subject
    assert decode_parts(headers[subjects.NATS_SUBJECT], headers, heard[0].data) == decode(stored)


async def test_crossing_the_limit_up_and_down_leaves_each_event_one_way(
    log: MemoryLog, pool: AsyncConnectionPool
) -> None:
    async with fanning_out(log, MemoryBus(), pool, limit=4) as heard:
        history = History(log)
        conversation = history.create("ann", "u1")
        for up in range(2, 8):
            history.change(conversation, "ann", add=[f"u{up}"])
            history.post(conversation, "ann", "up")
        for down in range(7, 0, -1):
            history.change(conversation, "ann", remove=[f"u{down}"])
            history.post(conversation, "ann", "down")
        await done(log, await history.append())
    assert told(heard) == await expected(log, 4)


# -- where the members come from ----------------------------------------------------------------------------


def _step(rng: random.Random, history: History, conversation: Conversation) -> None:
    users = [f"u{number}" for number in range(8)]
    members = [user for user in users if user in conversation.members]
    others = [user for user in users if user not in conversation.members]
    match rng.randrange(4):
        case 0 if others:
            history.change(conversation, "ann", add=rng.sample(others, rng.randint(1, min(3, len(others)))))
        case 1 if members:
            history.change(conversation, "ann", remove=rng.sample(members, rng.randint(1, min(3, len(members)))))
        case 2:
            history.rename(conversation, "ann", f"name {rng.random()}")
        case _:
            history.post(conversation, "ann", "text")


async def _random_log(log: MemoryLog, rng: random.Random, steps: int = 60) -> int:
    history = History(log)
    last = 0
    for _ in range(steps):
        if not history.conversations or rng.random() < 0.08:
            history.create("ann", *rng.sample(["u0", "u1", "u2"], rng.randint(1, 3)))
        else:
            _step(rng, history, rng.choice(history.conversations))
        last = await history.append()
    return last


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("members_max", [500_000, 4])
async def test_wherever_the_read_model_stands_everybody_concerned_is_told_and_nobody_else(
    log: MemoryLog, pool: AsyncConnectionPool, seed: int, members_max: int
) -> None:
    """Behind the fan-out, ahead of it, at the same place; with all audiences in memory, and with hardly any."""
    rng = random.Random(seed)
    last = await _random_log(log, rng)
    begin, limit = rng.randint(0, last), rng.randint(0, 6)
    await place(log, begin)
    await stand(pool, log, rng.choice([0, rng.randint(0, last), begin, last]))
    async with fanning_out(log, MemoryBus(), pool, limit=limit, members_max=members_max) as heard:
        await done(log, last)
    assert told(heard) == await expected(log, limit, after=begin)


@pytest.mark.parametrize("stands_at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("limit", [20, 120])
async def test_a_conversation_that_was_too_large_to_list_is_listed_when_it_shrinks(
    log: MemoryLog, pool: AsyncConnectionPool, stands_at: float, limit: int
) -> None:
    history = History(log)
    crowd = [f"u{number}" for number in range(250)]
    conversation = history.create("ann", *crowd)
    created = await history.append()
    for start in range(0, 240, 60):
        history.change(conversation, "ann", remove=crowd[start : start + 60])
        history.post(conversation, "ann", "fewer")
    last = await history.append()
    await place(log, created)
    await stand(pool, log, created + round(stands_at * (last - created)))
    async with fanning_out(log, MemoryBus(), pool, limit=limit) as heard:
        await done(log, last)
    assert told(heard) == await expected(log, limit, after=created)
    assert len([pair for pair in told(heard) if pair[1] == last]) == 11


async def test_without_postgres_members_are_read_from_the_log(log: MemoryLog) -> None:
    rng = random.Random(1)
    last = await _random_log(log, rng)
    await place(log, last // 2)
    async with (
        AsyncConnectionPool("postgresql://nobody@127.0.0.1:1/nothing", min_size=0, max_size=1, open=False) as nowhere,
        fanning_out(log, MemoryBus(), nowhere, limit=4) as heard,
    ):
        await done(log, last)
    assert told(heard) == await expected(log, 4, after=last // 2)


async def test_a_read_model_of_another_log_is_not_believed(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    rng = random.Random(2)
    last = await _random_log(log, rng)
    await place(log, last // 2)
    await stand(pool, log, last)
    async with pool.connection() as connection:
        await connection.execute("UPDATE checkpoints SET sequence = 1000000")
        await connection.execute("UPDATE conversations SET version = version + 1000000")
        await connection.execute("DELETE FROM members")
    async with fanning_out(log, MemoryBus(), pool, limit=4) as heard:
        await done(log, last)
    assert told(heard) == await expected(log, 4, after=last // 2)


# -- where it goes on ---------------------------------------------------------------------------------------


async def test_what_was_before_the_first_start_is_not_told(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    history.create("ann", "bob")
    await history.append()
    async with fanning_out(log, MemoryBus(), pool) as heard:
        history.create("cid", "dan")
        await done(log, await history.append())
        assert {signal.subject for signal in heard} == {subjects.live_user("cid"), subjects.live_user("dan")}


async def test_what_happens_while_none_runs_is_told_by_the_next(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    async with fanning_out(log, MemoryBus(), pool) as before:
        conversation = history.create("ann", "bob")
        await done(log, await history.append())
    for _ in range(3):
        history.post(conversation, "ann", "nobody is there")
    last = await history.append()
    async with fanning_out(log, MemoryBus(), pool) as after:
        await done(log, last)
    assert told([*before, *after]) == await expected(log, 100)


async def test_who_is_too_far_behind_goes_on_at_the_end(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    history = History(log)
    conversation = history.create("ann", "bob")
    await place(log, await history.append())
    [record] = _posted(history, conversation, 1)
    for _ in range(BEHIND_MAX // 1000):
        await append(log, [record] * 1000)
    await append(log, [record])
    async with fanning_out(log, MemoryBus(), pool) as heard:
        history.create("cid", "dan")
        await done(log, await history.append())
    assert {signal.subject for signal in heard} == {subjects.live_user("cid"), subjects.live_user("dan")}


def _posted(history: History, conversation: Conversation, count: int) -> list[Record]:
    for _ in range(count):
        history.post(conversation, "ann", "text")
    return history.records()


class _BreakingBus(MemoryBus):
    """Loses one publication when told to, and says so, as a connection does that breaks in the middle of a batch."""

    breaks = False

    async def publish_many(
        self, addresses: Sequence[str], data: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        if self.breaks:
            self.breaks = False
            self.lose("the connection broke")
        else:
            await super().publish_many(addresses, data, headers)


async def test_after_a_loss_what_was_not_acknowledged_is_published_again(
    log: MemoryLog, pool: AsyncConnectionPool
) -> None:
    bus = _BreakingBus()
    async with fanning_out(log, bus, pool, limit=3) as heard:
        history = History(log)
        conversation = history.create("ann", "bob")
        await done(log, await history.append())
        bus.breaks = True
        history.change(conversation, "ann", add=["cid"])
        history.post(conversation, "ann", "for three")
        last = await history.append()
        await done(log, last)
    # The last event of the batch was published before the loss was noticed, and again: doubles have their version.
    assert [int(signal.headers[subjects.VERSION]) for signal in heard] == [1, 1, 3, 3, 3, 2, 2, 2, 3, 3, 3]
    assert told(heard[:2] + heard[5:]) == await expected(log, 3)


async def test_the_least_recently_used_audiences_make_room(log: MemoryLog, pool: AsyncConnectionPool) -> None:
    def loads() -> float:
        return REGISTRY.get_sample_value("riverrun_audience_loads_total", {"stream": STREAM}) or 0.0

    before = loads()
    async with fanning_out(log, MemoryBus(), pool, members_max=9) as heard:  # two of three members, counted as four
        history = History(log)
        first, second = history.create("ann", "bob", "cid"), history.create("ann", "bob", "cid")
        await done(log, await history.append())
        history.post(first, "ann", "text")
        await done(log, await history.append())
        third = history.create("ann", "bob", "cid")
        history.post(third, "ann", "text")
        await done(log, await history.append())
        history.post(first, "ann", "text")
        await done(log, await history.append())
        assert loads() == before
        history.post(second, "ann", "text")
        await done(log, await history.append())
        assert loads() == before + 1
    assert told(heard) == await expected(log, 100)


@pytest.mark.parametrize("spoil", [lambda good: Record(good.subject, b"\xc1", good.headers), lambda good: None])
async def test_an_unreadable_event_does_not_silence_those_after_it(
    log: MemoryLog, pool: AsyncConnectionPool, spoil: Callable[[Record], Record | None]
) -> None:
    async with fanning_out(log, MemoryBus(), pool) as heard:
        history = History(log)
        history.create("ann", "bob")
        [good] = history.records()
        strange = spoil(good) or Record(good.subject, good.data, {subjects.TYPE: "message.posted"})
        await append(log, [strange, good])
        await until(lambda: len(heard) == 2)
