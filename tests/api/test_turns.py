"""Who begins, and who waits: a bounded number at a time, in the order they came."""

import asyncio

import pytest

from api.refusals import Crowded
from api.turns import Turns


async def _begin(turns: Turns, number: int, began: list[int], end: asyncio.Event) -> None:
    async with turns.turn():
        began.append(number)
        await end.wait()


async def _turn_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    turns, began = Turns(at_once=2, waiting_max=10), list[int]()
    ends = [asyncio.Event() for _ in range(6)]
    tasks = [asyncio.create_task(_begin(turns, number, began, ends[number])) for number in range(6)]
    await _turn_of_the_loop()
    assert began == [0, 1]
    for number in (1, 0, 2, 3, 4, 5):
        ends[number].set()
        await _turn_of_the_loop()
    assert began == [0, 1, 2, 3, 4, 5]
    await asyncio.gather(*tasks)


async def test_one_more_than_may_wait_is_refused_and_may_come_again() -> None:
    turns, began, end = Turns(at_once=1, waiting_max=2), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(_begin(turns, number, began, end)) for number in range(3)]
    await _turn_of_the_loop()
    with pytest.raises(Crowded) as refusal:
        async with turns.turn():
            pass
    assert refusal.value.retryable
    end.set()
    await asyncio.gather(*tasks)
    async with turns.turn():
        began.append(3)
    assert began == [0, 1, 2, 3]


async def test_who_goes_while_waiting_takes_no_turn() -> None:
    turns, began, end = Turns(at_once=1, waiting_max=2), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(_begin(turns, number, began, end)) for number in range(3)]
    await _turn_of_the_loop()
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    late = asyncio.create_task(_begin(turns, 3, began, end))  # there is room again
    await _turn_of_the_loop()
    end.set()
    await asyncio.gather(tasks[0], tasks[2], late)
    assert began == [0, 2, 3]
