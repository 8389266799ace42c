"""The load generator through its adapters: Riverrun's protocol as the test scripts it, and ejabberd itself."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.ejabberd import CTL, ejabberd
from benchmarks.floors import bare_fanout_server
from runtime.bench.adapter import Op, Seat
from runtime.bench.adapters import find_adapter, load_adapter
from runtime.bench.driver import drive, work
from runtime.bench.load import Load, Measure
from runtime.bench.mark import marked, now_us
from runtime.bench.outcome import Outcome, of_processes
from runtime.bench.population import evenly
from runtime.bench.running import prepare, works
from runtime.bench.sessions import open_sessions
from runtime.client import SUBPROTOCOL

Answer = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]
PUSH = b'{"event":{"type":"message.posted","version":7,"data":{"body":{"text":"%b"}}}}' % marked(7, 7, "100 %").encode()


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
    return now_us()


async def loaded(url: str, load: Load, *, together: bool = False, users: int = 3) -> Outcome:
    """Load on users who are alone in a group each, or together in one."""
    spec = find_adapter("riverrun", {"url": url})
    seats = [Seat(f"u{user}", "t", {0 if together else user: "7"}) for user in range(users)]
    [plan] = works(spec, load, [range(users)], seats)
    return of_processes([await work(plan, at_once)])


async def ack(connection: ServerConnection, request: dict[str, Any]) -> None:
    push = json.dumps({"event": {"type": "message.posted", "data": request["send"]["body"]}}, separators=(",", ":"))
    answer = json.dumps({"id": request["id"], "ok": {"seq": 1}}, separators=(",", ":"))
    await connection.send(f"{push}\n{answer}")


async def test_each_of_the_closed_loops_users_has_one_message_under_way() -> None:
    waiting: set[ServerConnection] = set()
    most = acked = 0

    async def counted(connection: ServerConnection, request: dict[str, Any]) -> None:
        nonlocal most, acked
        assert connection not in waiting
        assert len(request["send"]["body"]["text"]) == 50
        waiting.add(connection)
        most = max(most, len(waiting))
        await asyncio.sleep(0.001)  # the others' turn
        waiting.remove(connection)
        acked += 1
        await ack(connection, request)

    async with serving(counted) as url:
        outcome = await loaded(url, Load(closed=3, seconds=0.3, warmup_s=0, size=50))
    assert most == 3
    # Each may have had one under way when the time was up.
    assert acked - 3 <= outcome.completed[Op.SEND] <= acked == outcome.of(Measure.ACK).count
    assert outcome.of(Measure.DELIVERY).count == acked
    assert (outcome.errors, outcome.unanswered, outcome.missed) == ({}, 0, 0)


async def test_a_user_of_several_groups_posts_in_them_by_turns_and_no_run_repeats_another() -> None:
    posted: list[tuple[str, str]] = []

    async def noted(connection: ServerConnection, request: dict[str, Any]) -> None:
        posted.append((request["send"]["conversation_id"], request["send"]["client_msg_id"]))
        await ack(connection, request)

    load = Load(closed=1, seconds=0.1, warmup_s=0)
    async with serving(noted) as url:
        spec = find_adapter("riverrun", {"url": url})
        seat = Seat("u", "t", {0: "a", 1: "b", 2: "c"})
        async with open_sessions(load_adapter(spec), [seat]) as sessions:
            for round_ in range(2):
                began = len(posted)
                [plan] = works(spec, load, [[0]], [seat], round_)
                outcome = await drive(plan, sessions)
                groups = [group for group, _ in posted[began:]]
                assert len(groups) == outcome.due > 3
                assert groups == [("a", "b", "c")[number % 3] for number in range(len(groups))]
    assert len({client_msg_id for _, client_msg_id in posted}) == len(posted)


async def test_refusals_are_counted_by_code() -> None:
    async def refuse(connection: ServerConnection, request: dict[str, Any]) -> None:
        error = {"code": "rate_limited", "message": "m", "retryable": True}
        await connection.send(json.dumps({"id": request["id"], "error": error}, separators=(",", ":")))

    async with serving(refuse) as url:
        outcome = await loaded(url, Load(seconds=0.1, warmup_s=0))
    assert set(outcome.errors) == {"send: rate_limited"}
    assert (outcome.completed[Op.SEND], outcome.missed) == (0, 0)


async def test_a_session_that_the_server_ends_is_counted_by_its_close_code() -> None:
    async def end(connection: ServerConnection, request: dict[str, Any]) -> None:
        await ack(connection, request)
        await connection.close(3008)

    async with serving(end) as url:
        outcome = await loaded(url, Load(closed=3, seconds=0.1, warmup_s=0))
    assert outcome.errors["session ended: closed 3008"] == 3
    assert outcome.sessions == 0


async def test_the_bare_fan_out_server_gives_each_member_each_message() -> None:
    load = Load(closed=4, seconds=0.3, warmup_s=0.1, headline=Measure.LAST, posters=1)
    with bare_fanout_server(PUSH) as url:
        outcome = await loaded(url, load, together=True, users=20)
    assert (outcome.errors, outcome.unanswered, outcome.missed, outcome.doubled) == ({}, 0, 0, 0)
    assert outcome.due == outcome.of(Measure.LAST).count > 0
    assert outcome.of(Measure.DELIVERY).count == 20 * outcome.due
    assert b"100 %" in outcome.sample


@pytest.mark.skipif(shutil.which(CTL) is None, reason="ejabberd is not installed")
def test_a_load_on_ejabberd() -> None:
    with ejabberd() as server:
        spec = find_adapter("xmpp", {"url": server.url, "server_pids": {"xmpp": server.pid}})
        mix = {Op.SEND: 0.6, Op.READ: 0.3, Op.TYPING: 0.1}
        talk = prepare(spec, Load(mix=mix, rate=50, seconds=1, warmup_s=0), evenly(6, 2, 1))
        assert "ejabberd" in talk.about
        assert talk.memory_bytes["xmpp"] > 0
        outcome = talk.round()
        assert (outcome.errors, outcome.unanswered) == ({}, 0)
        assert outcome.due == 50
        assert {Op(name) for name in outcome.completed} == set(mix)
        assert (outcome.missed, outcome.doubled, outcome.disordered) == (0, 0, 0)
        assert outcome.of(Measure.DELIVERY).count == 3 * outcome.of(Measure.ACK).count > 0

        cut = replace(talk, load=Load(mix={Op.RECONNECT: 1}, closed=2, seconds=0.3, warmup_s=0))
        outcome = cut.round()
        assert (outcome.errors, outcome.sessions) == ({}, 6)
        assert outcome.of(Measure.RECONNECT).count > 0
