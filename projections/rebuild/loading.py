"""Loading a draft: portions of the log folded in large batches, by whichever process is told to.

It is the projections' own code and the workers' own applier; only the batches are larger, so that what is merged by key
is merged once where a worker would do it ten times.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec

from projections.applying import Applier, Bury
from projections.catalogue import projections_of
from projections.dead import reason_of
from projections.rebuild.draft import Draft
from projections.rebuild.slices import SLICES, Portion
from projections.rebuild.source import ahead, batches
from streams.ports import Delivery, Log


class Order(msgspec.Struct, frozen=True):
    """What one process is to load.

    Attributes:
        schema, names: of the draft.
        up_to: by stream, up to which sequence.
    """

    schema: str
    names: Sequence[str]
    portions: Sequence[Portion]
    up_to: dict[str, int]


class Died(msgspec.Struct, frozen=True, tag="died"):
    """An event that a projection could not apply. The rebuild goes on without it, as a worker does."""

    projection: str
    stream: str
    sequence: int
    subject: str
    error: str

    def __str__(self) -> str:
        return f"{self.projection}: {self.stream} sequence {self.sequence}, {self.subject}: {self.error}"

    @property
    def place(self) -> tuple[str, str, int]:
        """What tells it from others."""
        return (self.projection, self.stream, self.sequence)


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """So many more events were applied."""

    events: int


TellLoaded: TypeAlias = Callable[[Applied | Died], None]
# Has orders carried out, all at once, and tells what their processes tell. Raises what `load` does.
Loader: TypeAlias = Callable[[Sequence[Order], TellLoaded], Awaitable[None]]


async def load(log: Log, postgres_url: str, order: Order, tell: TellLoaded) -> None:
    """Carry out an order, portion by portion; the slices of a portion at once.

    Raises:
        Interrupted: Postgres went away, or the draft did. LogUnavailable: log or archive cannot be read.
    """
    async with Draft(order.schema, order.names).pool(postgres_url, size=SLICES) as pool:
        for portion in order.portions:
            appliers = {
                number: Applier(pool, projections_of(portion.family, order.names), number=number, bury=burying(tell))
                for number in portion.numbers
            }
            for applier in appliers.values():
                await applier.read_checkpoints()
            up_to = order.up_to[portion.stream]
            reading = ahead(batches(log, portion.stream, up_to_sequence=up_to, has=portion.has))
            async with aclosing(reading):
                async for batch in reading:
                    await _all([appliers[number].apply(part) for number, part in portion.divided(batch).items()])
                    tell(Applied(len(batch)))


async def _all(applying: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Each to its end, also where another one fails: nobody writes any more when this raises."""
    for outcome in await asyncio.gather(*applying, return_exceptions=True):
        if outcome is not None:
            raise outcome


def burying(tell: TellLoaded) -> Bury:
    """Tells of what cannot be applied. It goes to `DEAD` only when the draft takes the place of what is in force."""

    async def bury(projection: str, delivery: Delivery, error: Exception) -> None:
        tell(Died(projection, delivery.stream, delivery.sequence, delivery.subject, reason_of(error)))

    return bury
