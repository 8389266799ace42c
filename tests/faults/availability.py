"""How long nothing could be sent: of each partition the longest time without an ack, from a fault on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from tests.faults.recording import Attempt


def outages(
    attempts: Iterable[Attempt], partitions: Mapping[str, int], *, from_s: float, until_s: float
) -> dict[int, float]:
    """Of each partition the longest time, within an interval, in which nothing was acked, in seconds.

    Args:
        partitions: of each conversation.
    """
    acks: dict[int, list[float]] = defaultdict(list)
    for partition in set(partitions.values()):
        acks[partition] += (from_s, until_s)
    for attempt in attempts:
        if attempt.outcome == "acked" and from_s <= attempt.ended_s <= until_s:
            acks[partitions[attempt.conversation]].append(attempt.ended_s)
    return {
        partition: max(later - earlier for earlier, later in pairwise(sorted(times)))
        for partition, times in acks.items()
    }


def accepted_after(attempts: Iterable[Attempt], partitions: Mapping[str, int], *, from_s: float) -> dict[int, float]:
    """Of each partition the time from a moment to the first ack that came after it, in seconds; none: infinite."""
    first = dict.fromkeys(partitions.values(), float("inf"))
    for attempt in attempts:
        if attempt.outcome == "acked" and attempt.ended_s >= from_s:
            partition = partitions[attempt.conversation]
            first[partition] = min(first[partition], attempt.ended_s - from_s)
    return first
