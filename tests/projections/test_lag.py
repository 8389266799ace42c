"""How far a reader is behind: in events, and since when."""

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from projections.lag import LOOKS_MAX, Lag
from projections.reader import follow
from streams.memory import MemoryLog
from streams.ports import Delivery, LogUnavailable
from tests.projections.history import STREAM, chat


class Ends(MemoryLog):
    """A stream of which only the end is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.end: int | None = 0

    async def last_sequence(self, stream: str) -> int:
        if self.end is None:
            raise LogUnavailable("away")
        return self.end


def shown(unit: str, reader: str = "test") -> float | None:
    return REGISTRY.get_sample_value(f"riverrun_reader_lag_{unit}", {"reader": reader, "stream": STREAM})


class Looks:
    """A lag, and the looks at it, a second each."""

    def __init__(self) -> None:
        self.log = Ends()
        self.now_s = 100.0
        self.lag = Lag(self.log, "test", STREAM, clock=lambda: self.now_s)

    async def at(self, end: int | None, position: int) -> tuple[float | None, float | None]:
        await self.unseen(end, position)
        return shown("events"), shown("seconds")

    async def unseen(self, end: int | None, position: int) -> None:
        """A look whose outcome nobody reads: that costs a walk through all metrics."""
        self.log.end, self.lag.position = end, position
        await self.lag.look()
        self.now_s += 1


@pytest.fixture
def looks() -> Looks:
    return Looks()


async def test_the_oldest_event_that_waits_gives_the_seconds(looks: Looks) -> None:
    assert await looks.at(10, 10) == (0, 0)
    assert await looks.at(12, 10) == (2, 0)
    assert await looks.at(15, 10) == (5, 1)
    assert await looks.at(20, 12) == (8, 1)  # the 13th is there since a second
    assert await looks.at(20, 15) == (5, 1)
    assert await looks.at(20, 20) == (0, 0)


async def test_a_long_silence_is_no_lag(looks: Looks) -> None:
    await looks.at(10, 10)
    looks.now_s += 3600
    assert await looks.at(11, 10) == (1, 0)


async def test_while_the_log_is_away_what_is_known_to_wait_grows_older(looks: Looks) -> None:
    await looks.at(10, 7)
    assert await looks.at(None, 7) == (3, 1)
    assert await looks.at(None, 7) == (3, 2)


async def test_of_a_reader_that_stands_for_long_the_beginning_is_not_forgotten(looks: Looks) -> None:
    for end in range(1, LOOKS_MAX + 10):
        await looks.unseen(end, 0)
    assert await looks.at(LOOKS_MAX + 10, 0) == (LOOKS_MAX + 10, LOOKS_MAX + 9)


async def becomes(reader: str, events: int | None) -> None:
    """Wait until a reader is shown to be so far behind."""
    async with asyncio.timeout(10):
        while shown("events", reader) != events:
            await asyncio.sleep(0.01)


class Held:
    """A reader that stops before its first batch until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken = 0

    async def position(self) -> int:
        return 0

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        await self.go.wait()
        self.taken = deliveries[-1].sequence
        return self.taken

    async def idle(self) -> int:
        return self.taken


class Late(Held):
    """A reader that is done with what it took when nothing more comes, and it is let go."""

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        self.taken = deliveries[-1].sequence
        return 0

    async def idle(self) -> int:
        await self.go.wait()
        return self.taken


@pytest.mark.parametrize("kind", [Held, Late])
async def test_who_follows_a_stream_shows_its_lag_until_it_ends(log: MemoryLog, kind: type[Held]) -> None:
    last = await chat(log, 5).append()
    reader, name = kind(), kind.__name__
    following = asyncio.create_task(follow(log, STREAM, name, reader))
    await becomes(name, last)
    reader.go.set()
    await becomes(name, 0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert shown("events", name) is None
    assert shown("seconds", name) is None
