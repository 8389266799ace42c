"""The fan-out of a partition: addresses each event of a conversation to whom it concerns.

Up to `limit` members an event goes to every member's `live.user.*` (write fan-out). Above it, gateways hear the event
under `live.conv.*`, where JetStream republishes it (read fan-out), and only who was put in or out is told from here.
Which way it is depends on the number of members right after the event, so all who decide by it decide alike.

Where it goes on after an end or an outage is what its consumer has acknowledged. Publications and acknowledgement leave
by one connection, in order, so what is acknowledged was published: nothing is left out, some may be repeated, and who
listens tells doubles by their version.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from psycopg_pool import AsyncConnectionPool

from domain.events import OF_CONVERSATIONS, ConversationCreated, Event, MemberAdded, MemberRemoved
from domain.fanout import SIGNAL_MEMBERS_MAX, writes
from projections import metrics
from projections.audience import MEMBERS_MAX, Audience, Audiences, change_of_members
from projections.blocked_pairs import PAIR_EVENTS, BlockedPairs
from projections.reader import Interrupted, follow
from streams import subjects
from streams.ports import Bus, BusError, Delivery, Log

READER: Final = "fanout"
BEHIND_MAX: Final = 10_000  # events: a second or two of publishing; who waits longer than that has synced meanwhile

log_ = structlog.get_logger(__name__)

_PUBLIC: Final = frozenset(event.TOPIC for event in OF_CONVERSATIONS)


class FanoutWorker:
    """Addresses one partition's events while `run` runs, in log order, at least once.

    Args:
        bus: over the connection of `log`.
        pool: of the read models, opened and closed by its maker.
        limit: members up to which an event is addressed to each.
        members_max: users kept in memory at most.

    Attributes:
        audiences, blocked_pairs: what this partition's signals are brought by.
        begun: set once it is settled where it goes on: what is stored from then on will be addressed.
    """

    def __init__(
        self,
        log: Log,
        bus: Bus,
        pool: AsyncConnectionPool,
        *,
        partition: int,
        limit: int,
        members_max: int = MEMBERS_MAX,
    ) -> None:
        self.stream = subjects.stream(subjects.CONV, partition)
        self.audiences = Audiences(
            log, pool, partition=partition, listed=max(limit, SIGNAL_MEMBERS_MAX), members_max=members_max
        )
        self.blocked_pairs = BlockedPairs(log, partition=partition)
        self._log = log
        self._bus = bus
        self._limit = limit
        self.begun = asyncio.Event()
        self._position: int | None = None
        self._lost = False
        self._told = metrics.FANNED_OUT.labels(self.stream)
        bus.on_loss(self._on_loss)

    @property
    def told_sequence(self) -> int | None:
        """Up to where everything was addressed; `None` before that is settled."""
        return self._position

    async def run(self) -> None:
        """Follow the partition until cancelled."""
        await follow(self._log, self.stream, READER, self, pace_s=0)

    def _on_loss(self, _reason: str) -> None:
        self._lost = True

    # -- the place of `reader.follow` -----------------------------------------------------------------------

    async def position(self) -> int:
        """What was acknowledged; where nobody knows, where this process left off, or at its start the stream's end.

        Too far behind, the end as well: sessions have found by other ways what happened since.
        """
        self._lost = False
        place = await self._log.place(self.stream, READER)
        end = await self._log.last_sequence(self.stream)
        if place is None:
            place = end if self._position is None else self._position
        if not 0 <= end - place <= BEHIND_MAX:
            log_.warning("fan-out goes on at the end", stream=self.stream, place=place, end=end)
            place = end
        if place != self._position:
            self.audiences.clear()
            self.blocked_pairs.clear()
            self._position = place
        self.begun.set()
        return place

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Address what is public, and pass over the rest."""
        self._check_lost()
        await self.audiences.prepare([delivery for delivery in deliveries if _is_public(delivery)])
        for delivery in deliveries:
            if _is_public(delivery):
                await self._address(delivery)
            elif delivery.headers.get(subjects.TYPE) in PAIR_EVENTS:
                self.blocked_pairs.forget(subjects.aggregate_id(delivery.subject))
            self._position = delivery.sequence
        self._check_lost()
        return deliveries[-1].sequence

    async def idle(self) -> int:
        """All that came is addressed."""
        self._check_lost()
        assert self._position is not None  # settled before anything is read
        return self._position

    def _check_lost(self) -> None:
        """After a loss nobody knows what was published: go back to what was acknowledged."""
        if self._lost:
            raise Interrupted("publications may have been lost")

    # -- addressing -----------------------------------------------------------------------------------------

    async def _address(self, delivery: Delivery) -> None:
        event = change_of_members(delivery)
        audience = await self.audiences.after(delivery, event)
        addresses = self._addresses(audience, event)
        if not addresses:
            return
        # As JetStream would republish it: who listens sees no difference.
        headers = {
            **delivery.headers,
            subjects.NATS_STREAM: delivery.stream,
            subjects.NATS_SUBJECT: delivery.subject,
            subjects.NATS_SEQUENCE: str(delivery.sequence),
            subjects.NATS_TIME: delivery.stored_at.isoformat(),
        }
        try:
            await self._bus.publish_many(addresses, delivery.data, headers)
        except BusError as error:
            log_.error(
                "event not fanned out",
                stream=delivery.stream,
                sequence=delivery.sequence,
                correlation_id=delivery.headers.get(subjects.CORRELATION),
                error=str(error),
            )
            return
        self._told.inc(len(addresses))

    def _addresses(self, audience: Audience, event: Event | None) -> list[str]:
        """The subjects under which an event is published, each once."""
        written = writes(audience.count, self._limit) and audience.addresses is not None
        addresses = list((audience.addresses or {}).values()) if written else []
        match event:
            case MemberRemoved(user_id=user_id):
                addresses.append(subjects.live_user(user_id))
            case MemberAdded(user_id=user_id) if not written:
                addresses.append(subjects.live_user(user_id))
            case ConversationCreated(members=members) if not written:
                addresses += map(subjects.live_user, members)
            case _:
                pass
        return addresses


def _is_public(delivery: Delivery) -> bool:
    headers = delivery.headers
    return headers.get(subjects.TYPE) in _PUBLIC and headers.get(subjects.VERSION, "").isdecimal()
