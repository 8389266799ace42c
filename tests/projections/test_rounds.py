"""Rounds: those who ask while a look is under way are answered by the next, together."""

import asyncio
from collections.abc import Sequence

import pytest

from projections.rounds import Rounds


class Looking:
    """Doubles numbers, one look at a time, each let go by the test."""

    def __init__(self) -> None:
        self.looks: list[list[int]] = []
        self.open = asyncio.Event()

    async def look(self, asked: Sequence[int]) -> list[int]:
        self.looks.append(list(asked))
        await self.open.wait()
        if 13 in asked:
            raise ValueError("unlucky")
        return [2 * number for number in asked]


async def begun(looking: Looking, looks: int) -> None:
    while len(looking.looks) < looks:
        await asyncio.sleep(0)


async def test_those_who_ask_meanwhile_share_the_next_look() -> None:
    looking = Looking()
    rounds = Rounds(looking.look, most=3)
    first = asyncio.create_task(rounds.ask(1))
    await begun(looking, 1)
    others = [asyncio.create_task(rounds.ask(number)) for number in range(2, 7)]
    await asyncio.sleep(0)
    looking.open.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10, 12]
    assert looking.looks == [[1], [2, 3, 4], [5, 6]]
    assert await rounds.ask(7) == 14


async def test_a_look_that_fails_is_told_to_its_askers_and_to_no_others() -> None:
    looking = Looking()
    rounds = Rounds(looking.look, most=2)
    asked = [asyncio.create_task(rounds.ask(number)) for number in (1, 13, 3)]
    looking.open.set()
    one, unlucky, three = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(one, ValueError)
    assert isinstance(unlucky, ValueError)
    assert three == 6


async def test_who_waits_no_more_is_not_asked_for() -> None:
    looking = Looking()
    rounds = Rounds(looking.look, most=10)
    first = asyncio.create_task(rounds.ask(1))
    await begun(looking, 1)
    gone, stays = asyncio.create_task(rounds.ask(2)), asyncio.create_task(rounds.ask(3))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    looking.open.set()
    assert [await first, await stays] == [2, 6]
    assert looking.looks == [[1], [3]]
