"""What is folded: archive and log from one sequence up to another, all of it, in batches."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from streams.ports import Delivery, Log, LogUnavailable

BATCH_EVENTS: Final = 10_000  # by as many transactions as there are slices
BATCH_BYTES: Final = 8 << 20
SHORT_TRIES: Final = 50  # a replica that has not all of it yet has it in a moment
SHORT_S: Final = 0.1


async def batches(
    log: Log,
    stream: str,
    *,
    after_sequence: int = 0,
    up_to_sequence: int,
    has: Callable[[str], bool] = lambda _: True,
) -> AsyncGenerator[list[Delivery]]:
    """The events of some subjects, in order. Each batch is bounded in events and in bytes, and has at least one.

    Args:
        up_to_sequence: the stream has reached it.
        has: whether the events of a subject are wanted.

    Raises:
        LogUnavailable: it cannot be read, or not up to that sequence.
    """
    batch: list[Delivery] = []
    at, size_bytes, tries = after_sequence, 0, 0
    while at < up_to_sequence:
        reading = log.read(stream, after_sequence=at, up_to_sequence=up_to_sequence)
        async for delivery in reading:
            at = delivery.sequence
            if not has(delivery.subject):
                continue
            batch.append(delivery)
            size_bytes += len(delivery.data)
            if len(batch) >= BATCH_EVENTS or size_bytes >= BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
        if at < up_to_sequence:
            tries += 1
            if tries == SHORT_TRIES:
                raise LogUnavailable(f"{stream} could be read up to {at:,} only, and reaches {up_to_sequence:,}")
            await asyncio.sleep(SHORT_S)
    if batch:
        yield batch


async def ahead(reading: AsyncGenerator[list[Delivery]]) -> AsyncGenerator[list[Delivery]]:
    """The same batches, each next one read while the last is worked on. Closes what it reads."""

    async def following() -> list[Delivery] | None:
        return await anext(reading, None)

    asked = asyncio.create_task(following())
    try:
        while (batch := await asked) is not None:
            asked = asyncio.create_task(following())
            yield batch
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await reading.aclose()


async def event_at(log: Log, stream: str, sequence: int) -> Delivery:
    """One event.

    Raises:
        LogUnavailable: it cannot be read.
    """
    async with aclosing(batches(log, stream, after_sequence=sequence - 1, up_to_sequence=sequence)) as found:
        return (await anext(found))[0]
