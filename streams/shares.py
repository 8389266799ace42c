"""A node's share of the partitions, for one role: taken up and given up as nodes come and go.

What working on a partition means is its duty: an asynchronous context that has begun when it is entered, and gives the
future of the work that goes on inside.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import structlog

from domain.errors import Unavailable
from streams import metrics, subjects
from streams.membership import Held, Membership
from streams.ring import Ring

Duty: TypeAlias = Callable[[str, int], AbstractAsyncContextManager["asyncio.Future[Any]"]]  # of a family and partition
Standing: TypeAlias = Callable[[str, int], dict[str, int]]  # `position` or `waiting` of a `Held`

log_ = structlog.get_logger(__name__)


class Share:
    """The partitions that are this node's for a role, while `run` runs.

    Args:
        families: whose partitions are shared out.
        standing: how the work on a partition that is held stands, for the announcement.
    """

    def __init__(
        self,
        role: str,
        membership: Membership,
        duty: Duty,
        *,
        families: Iterable[str],
        partitions: int,
        standing: Standing,
    ) -> None:
        self.role = role
        self._membership = membership
        self._duty = duty
        self._families = tuple(families)
        self._partitions = partitions
        self._standing = standing
        self._working: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._held: dict[tuple[str, int], Held] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        membership.on_change(self._changed.set)

    @property
    def held(self) -> list[Held]:
        """What has begun, in the order of the streams, as it stands now."""
        return [
            Held(held.stream, held.since_ms, held.took_ms, **self._standing(*place))
            for place, held in sorted(self._held.items())
        ]

    async def ready(self) -> None:
        """Return if this node knows which partitions are its own, and works on them.

        Raises:
            Unavailable: not yet.
        """
        if not self._settled.is_set():
            raise Unavailable("partitions are not assigned yet")

    async def settled(self) -> None:
        """Wait until this node works on what is its own."""
        await self._settled.wait()

    async def run(self) -> None:
        """Follow the ring until cancelled, then give up everything, all at once.

        Raises:
            Exception: that of a work that ended by itself.
        """
        metrics.HELD.labels(self.role).set_function(lambda: len(self._held))
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait({changed, *self._working.values()}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                for task in self._working.values():
                    if task.done():
                        task.result()
                        raise RuntimeError("the work on a partition ended by itself")
                if self._changed.is_set():
                    self._changed.clear()
                    ring = self._membership.ring(self.role)
                    if self._membership.node_id in ring.nodes:
                        await self._follow(ring)
        finally:
            await self._give_up(set(self._working))
            metrics.HELD.remove(self.role)

    async def _follow(self, ring: Ring) -> None:
        seen_s = time.monotonic()
        own = {
            (family, partition)
            for family in self._families
            for partition in ring.owned(self._membership.node_id, family, self._partitions)
        }
        await self._give_up(self._working.keys() - own)
        for place in sorted(own - self._working.keys()):
            self._working[place] = asyncio.create_task(self._work(place, seen_s))
        self._look_settled()

    async def _work(self, place: tuple[str, int], seen_s: float) -> None:
        stream = subjects.stream(*place)
        try:
            async with self._duty(*place) as work:
                took_ms = round((time.monotonic() - seen_s) * 1000)
                self._held[place] = Held(stream, time.time_ns() // 1_000_000, took_ms)
                metrics.MOVES.labels(self.role).inc()
                log_.info("took over partition", role=self.role, stream=stream, took_ms=took_ms)
                self._look_settled()
                await asyncio.wait({work})  # not `await work`: cancelled, the duty ends its work in its own order
                work.result()
        finally:
            if self._held.pop(place, None) is not None:
                metrics.MOVES.labels(self.role).inc()

    def _look_settled(self) -> None:
        if self._held.keys() >= self._working.keys():
            self._settled.set()
            self._membership.announce_soon()

    async def _give_up(self, places: set[tuple[str, int]]) -> None:
        tasks = [self._working.pop(place) for place in sorted(places)]
        for task in tasks:
            task.cancel()
        for place, outcome in zip(sorted(places), await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            stream = subjects.stream(*place)
            if isinstance(outcome, Exception):
                log_.error("work on a partition ended badly", role=self.role, stream=stream, error=repr(outcome))
            log_.info("gave up partition", role=self.role, stream=stream)
