"""Where in a stream a moment is: found by halving, since the times at which a partition's events were decided never
go back. Thirty reads in a thousand million events, and nobody's clock is asked.
"""

from streams import subjects
from streams.ports import Delivery, Log


async def first_since(log: Log, stream: str, at_ms: int) -> int:
    """The sequence of the first event that was decided at a moment (Unix milliseconds) or later; past the end, if none.

    What does not say when it was decided is none of ours, and counts as decided with what follows.

    Raises:
        LogUnavailable: the log cannot be read.
    """
    low, high = 1, await log.last_sequence(stream) + 1  # what is looked for is in low … high
    while low < high:
        middle = (low + high) // 2
        at = await _decided_from(log, stream, middle)
        if at is None or at[1] >= at_ms:
            high = middle
        else:
            low = at[0] + 1
    return low


def declared_ms(delivery: Delivery) -> int | None:
    """When an event was decided, in Unix milliseconds; `None` where it does not say."""
    at_ms = delivery.headers.get(subjects.OCCURRED_AT, "")
    return int(at_ms) if at_ms.isascii() and at_ms.isdigit() else None


async def _decided_from(log: Log, stream: str, sequence: int) -> tuple[int, int] | None:
    """The first event from a sequence on that says when it was decided: its sequence, and that time."""
    for up_to_sequence in (sequence, None):  # mostly it is that one
        async for delivery in log.read(stream, after_sequence=sequence - 1, up_to_sequence=up_to_sequence):
            if (at_ms := declared_ms(delivery)) is not None:
                return delivery.sequence, at_ms
    return None
