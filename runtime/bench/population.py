"""Who takes part: users, the groups they are in, and which process holds whose session."""

import random
from dataclasses import dataclass

from runtime.bench.errors import BenchError


@dataclass(frozen=True, slots=True)
class Population:
    """The people of a run, by number.

    Attributes:
        groups: the members of each group, the one who makes it first.
        connected: by process, the users whose sessions it holds.
    """

    users: int
    groups: list[list[int]]
    connected: list[list[int]]


def evenly(users: int, groups: int, processes: int) -> Population:
    """Each user in one group, all groups of about the same size; a group is held by one process.

    Raises:
        BenchError: a group or a process would be empty.
    """
    if users < groups:
        raise BenchError(f"{users} users cannot fill {groups} groups")
    if groups < processes:
        raise BenchError(f"{processes} processes need as many groups; there are {groups}")
    members = [list(range(first, users, groups)) for first in range(groups)]
    connected = [
        [user for group in range(process, groups, processes) for user in members[group]] for process in range(processes)
    ]
    return Population(users, members, connected)


def one_group(users: int, connected: int, processes: int) -> Population:
    """All users in one group, of whom the first `connected` have sessions, spread over the processes.

    Raises:
        BenchError: more are connected than there are, or fewer than there are processes.
    """
    if not processes <= connected <= users:
        raise BenchError(f"of {users} members {connected} cannot be connected in {processes} processes")
    return Population(
        users, [list(range(users))], [list(range(process, connected, processes)) for process in range(processes)]
    )


def of_sizes(users: int, groups: int, sizes: tuple[int, ...], processes: int, seed: int) -> Population:
    """Groups of sizes taken in turn, their members drawn from the users of the process that holds the group.

    Raises:
        BenchError: there are too few users or groups for the processes.
    """
    pools = [list(range(process, users, processes)) for process in range(processes)]
    if groups < processes or min(len(pool) for pool in pools) < 2:
        raise BenchError(f"{users} users in {groups} groups are too few for {processes} processes")
    draw = random.Random(seed)  # noqa: S311  # repeatable on purpose
    members = []
    for number in range(groups):
        pool = pools[number % processes]
        members.append(draw.sample(pool, min(sizes[number // processes % len(sizes)], len(pool))))
    return Population(users, members, pools)
