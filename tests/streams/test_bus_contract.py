"""What every `Bus` promises, over memory and over NATS."""

import asyncio

import pytest

from streams.ports import Bus, NoReply, NoResponder, Signal
from tests.streams.conftest import Streams, until


@pytest.fixture
def bus(streams: Streams) -> Bus:
    return streams.bus


async def test_a_signal_reaches_every_listener_of_its_subject_in_order(bus: Bus) -> None:
    exact: list[Signal] = []
    one_token: list[Signal] = []
    rest: list[Signal] = []
    other: list[Signal] = []
    subscriptions = [
        await bus.subscribe("live.user.ann", exact.append),
        await bus.subscribe("live.user.*", one_token.append),
        await bus.subscribe("live.>", rest.append),
        await bus.subscribe("live.user", other.append),
        await bus.subscribe("live.*.bob", other.append),
    ]
    for number in range(100):
        await bus.publish("live.user.ann", str(number).encode(), {"Kind": "typing"})
    await bus.publish("live.conv.1.x", b"last")
    await until(lambda: len(rest) == 101)
    assert [signal.data for signal in exact] == [str(number).encode() for number in range(100)]
    assert exact == one_token == rest[:100]
    assert dict(exact[0].headers) == {"Kind": "typing"}
    assert (rest[100].subject, dict(rest[100].headers)) == ("live.conv.1.x", {})
    assert other == []
    for subscription in subscriptions:
        await subscription.close()


@pytest.mark.parametrize("headers", [None, {"Kind": "typing", "From": "ann"}])
async def test_the_same_goes_to_many_subjects_in_order_between_what_goes_to_one(
    bus: Bus, headers: dict[str, str] | None
) -> None:
    heard: list[Signal] = []
    subscription = await bus.subscribe("live.user.*", heard.append)
    many = [f"live.user.{number}" for number in range(3_000)]
    data = b"\r\nHPUB x 1\r\n" * 20
    await bus.publish("live.user.before", b"")
    await bus.publish_many(many, data, headers)
    await bus.publish_many([], data, headers)
    await bus.publish_many(["live.user.one"], b"", headers)
    await bus.publish("live.user.after", b"")
    await until(lambda: len(heard) == 3_003)
    await subscription.close()
    subjects = [signal.subject for signal in heard]
    assert subjects == ["live.user.before", *many, "live.user.one", "live.user.after"]
    assert {signal.data for signal in heard[1:3_001]} == {data}
    assert all(dict(signal.headers) == (headers or {}) for signal in heard[1:3_002])
    assert dict(heard[-1].headers) == {}


async def test_a_closed_subscription_hears_nothing_more(bus: Bus) -> None:
    closed: list[Signal] = []
    heard: list[Signal] = []
    first = await bus.subscribe("a", closed.append)
    second = await bus.subscribe("a", heard.append)
    await bus.publish("a", b"1")
    await first.close()
    before = len(closed)
    await bus.publish("a", b"2")
    await until(lambda: len(heard) == 2)
    assert len(closed) == before
    await first.close()
    await second.close()


async def test_a_listener_that_fails_costs_the_others_nothing(bus: Bus) -> None:
    heard: list[Signal] = []

    def fail(signal: Signal) -> None:
        raise ValueError(signal.subject)

    first = await bus.subscribe("a", fail)
    second = await bus.subscribe("a", heard.append)
    await bus.publish("a", b"1")
    await bus.publish("a", b"2")
    await until(lambda: len(heard) == 2)
    await first.close()
    await second.close()


async def test_requests_start_in_order_run_at_once_and_are_answered_each(bus: Bus) -> None:
    started: list[bytes] = []
    all_started = asyncio.Event()

    async def handler(data: bytes) -> bytes:
        started.append(data)
        if len(started) == 50:
            all_started.set()
        await all_started.wait()  # only if the handlers run concurrently does this end
        return data * 2

    door = await bus.respond("cmd.x", handler)
    requests = [b"%d" % number for number in range(50)]
    answers = await asyncio.gather(*(bus.request("cmd.x", data, timeout_s=5) for data in requests))
    assert answers == [data * 2 for data in requests]
    assert started == requests
    await door.close()


async def test_without_a_responder_the_asker_knows_at_once(bus: Bus) -> None:
    with pytest.raises(NoResponder):
        await bus.request("cmd.nobody", b"", timeout_s=60)

    async def handler(data: bytes) -> bytes:
        return data

    door = await bus.respond("cmd.somebody", handler)
    assert await bus.request("cmd.somebody", b"x", timeout_s=5) == b"x"
    await door.close()
    with pytest.raises(NoResponder):
        await bus.request("cmd.somebody", b"x", timeout_s=60)


async def test_no_answer_in_time_and_a_failing_handler_are_no_reply(bus: Bus) -> None:
    let_go = asyncio.Event()

    async def handler(data: bytes) -> bytes:
        if data == b"fail":
            raise ValueError("a defect")
        await let_go.wait()
        return b"late"

    door = await bus.respond("cmd.slow", handler)
    with pytest.raises(NoReply):
        await bus.request("cmd.slow", b"wait", timeout_s=0.05)
    with pytest.raises(NoReply):
        await bus.request("cmd.slow", b"fail", timeout_s=0.05)
    let_go.set()
    assert await bus.request("cmd.slow", b"x", timeout_s=5) == b"late"
    await door.close()


async def test_closing_a_responder_lets_what_it_works_on_be_answered(bus: Bus) -> None:
    working, let_go = asyncio.Event(), asyncio.Event()

    async def handler(data: bytes) -> bytes:
        working.set()
        await let_go.wait()
        return data

    door = await bus.respond("cmd.closing", handler)
    asking = asyncio.create_task(bus.request("cmd.closing", b"x", timeout_s=5))
    await working.wait()
    await door.close()
    let_go.set()
    assert await asking == b"x"
