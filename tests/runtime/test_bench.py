"""The load generator against servers that the test scripts: what it counts, and what it refuses to count."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.floors import bare_fanout_server
from runtime.bench.crowd import Seat
from runtime.bench.fanout import FanoutFailed, fan_out
from runtime.bench.processes import Ready, WorkerFailed, run
from runtime.bench.send import SendPlan, report, send
from runtime.client import SUBPROTOCOL

Answer = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]
PUSH = '{"event":{"type":"message.posted","version":7,"data":{"seq":7,"body":{"text":"100 %"}}}}'


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server that lets everybody in and answers every `send` as told."""

    async def session(connection: ServerConnection) -> None:
        async for frame in connection:
            request = json.loads(frame)
            if "connect" in request:
                await connection.send(json.dumps({"id": request["id"], "ok": {}}))
            elif "send" in request:
                await answer(connection, request)

    async with serve(session, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def at_once() -> int:
    return 0


async def ack(connection: ServerConnection, request: dict[str, Any]) -> None:
    push = json.dumps({"event": {"type": "message.posted"}}, separators=(",", ":"))
    answer = json.dumps({"id": request["id"], "ok": {"seq": 1}}, separators=(",", ":"))
    await connection.send(f"{push}\n{answer}")


async def test_closed_loop_senders_count_every_ack_and_push() -> None:
    acked = 0

    async def counted(connection: ServerConnection, request: dict[str, Any]) -> None:
        nonlocal acked
        acked += 1
        assert request["send"]["body"] == {"type": "text", "text": "xxxxx"}
        await ack(connection, request)

    async with serving(counted) as url:
        outcome = await send(SendPlan(url, [Seat("t", "7")] * 3, 0.3, 0.0, 5), at_once)
    figures = report([outcome], 0.3)
    # Each sender may have had one message under way when the time was up.
    assert acked - 3 <= figures.acked <= acked
    assert figures.acked == figures.latency_ms.count == outcome.pushes > 0
    assert (figures.errors, figures.unanswered) == ({}, 0)


async def test_the_open_loop_charges_a_stall_to_every_message_that_was_due() -> None:
    first = asyncio.Event()

    async def stalling(connection: ServerConnection, request: dict[str, Any]) -> None:
        if not first.is_set():
            first.set()
            await asyncio.sleep(0.2)  # the stall itself
        await ack(connection, request)

    async with serving(stalling) as url:
        outcome = await send(SendPlan(url, [Seat("t", "7")], 0.5, 0.0, 5, rate=100), at_once)
    assert outcome.acked >= 45
    assert sum(second > 0.05 for second in outcome.seconds) >= 10


async def test_refusals_are_counted_by_code() -> None:
    async def refuse(connection: ServerConnection, request: dict[str, Any]) -> None:
        error = {"code": "rate_limited", "message": "m", "retryable": True}
        await connection.send(json.dumps({"id": request["id"], "error": error}, separators=(",", ":")))

    async with serving(refuse) as url:
        outcome = await send(SendPlan(url, [Seat("t", "7")], 0.1, 0.0, 5), at_once)
    assert outcome.acked == 0
    assert set(outcome.errors) == {"rate_limited"}


async def test_a_session_that_the_server_ends_is_counted_by_its_close_code() -> None:
    async def end(connection: ServerConnection, request: dict[str, Any]) -> None:
        await ack(connection, request)
        await connection.close(3008)

    async with serving(end) as url:
        outcome = await send(SendPlan(url, [Seat("t", "7")] * 2, 0.1, 0.0, 5), at_once)
    assert outcome.errors == {"closed_3008": 2}


async def test_fan_out_counts_each_delivery_to_each_member() -> None:
    with bare_fanout_server(PUSH) as url:
        figures = await fan_out(url, ["t"] * 20, "7", seconds=0.3, warmup_s=0.1, size_bytes=5, window=4)
    assert figures.members == 20
    assert figures.messages_per_s > 0
    assert figures.deliveries_per_s == pytest.approx(20 * figures.messages_per_s, rel=0.1)
    assert '"text":"100 %"' in figures.push


async def test_fan_out_at_a_rate_posts_at_that_rate() -> None:
    with bare_fanout_server(PUSH) as url:
        figures = await fan_out(url, ["t"] * 3, "7", seconds=0.5, warmup_s=0.1, size_bytes=5, rate=100)
    assert figures.messages_per_s == pytest.approx(100, rel=0.2)


async def test_fan_out_is_worthless_when_a_member_misses_a_message() -> None:
    with (
        bare_fanout_server(PUSH) as url,
        pytest.raises(FanoutFailed, match="a member got seq 1 where 5 was due"),
    ):
        await fan_out(url, ["t"] * 3, "7", seconds=5, warmup_s=0, size_bytes=5, first_seq=5)


async def double(number: int, ready: Ready) -> int:
    await ready()
    if number < 0:
        raise ValueError("negative")
    return 2 * number


@pytest.mark.parametrize("numbers", [[4], [1, 2, 3]])
def test_plans_are_done_by_processes_in_order(numbers: list[int]) -> None:
    assert run(double, numbers) == [2 * number for number in numbers]


def test_a_process_that_fails_fails_the_run() -> None:
    with pytest.raises(WorkerFailed, match="negative"):
        run(double, [1, -1])
