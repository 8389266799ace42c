"""Killing: processes end at random points of a piece of work, which must come out as if nothing had happened."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from streams.ports import LogUnavailable
from tests.proof.bars import Bar
from tests.proof.site import POLL_S, Role, Site

LONGEST_S: Final = 3.0  # from when its point has come until a kill: somewhere in a batch, or in a month's move
OF_CLICKHOUSE: Final = 2  # one kill of so many hits ClickHouse, and not who works with it


async def through_kills(
    site: Site,
    role: Role,
    done: Callable[[], Awaitable[int]],
    total: int,
    *,
    kills: int,
    dice: random.Random,
    bar: Bar,
) -> int:
    """Have a role work until it is done, killed on its way; how often it, or ClickHouse, was.

    Args:
        done: how much of the work is.
        kills: the first one soon, the others at points drawn one from each part of the work that there is.
    """
    began = so_far = await done()
    points = [began + (total - began) * (number and number + dice.random() - 0.5) / kills for number in range(kills)]
    killed = 0
    async with role:
        while (so_far := await _so_far(done, so_far)) < total:
            bar(so_far, total)
            role.check()
            if killed < len(points) and so_far >= points[killed]:
                await asyncio.sleep(dice.random() * LONGEST_S)  # the point itself, not a wait for something
                killed += 1
                if killed % OF_CLICKHOUSE == 0 and (pid := site.servers.pids.get("clickhouse")):
                    os.kill(pid, signal.SIGKILL)  # it is started again
                else:
                    await role.kill()
                    await role.spawn()
            else:
                await asyncio.sleep(POLL_S)
        bar(total, total)
    await site.answers()
    return killed


async def _so_far(done: Callable[[], Awaitable[int]], before: int) -> int:
    """How much is done; as much as before, where it cannot be asked because it was killed."""
    try:
        return await done()
    except LogUnavailable:
        return before
