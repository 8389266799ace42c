"""The fan-out of this release: tells each user which conversations they were put into or out of.

Events inside a conversation reach its members' gateways by JetStream's republish (`live.conv.*`). What tells a gateway
to listen there goes to `live.user.*`, from here. Push is fast, pull is the truth: what happens while no fan-out runs is
history, and sessions find it when they sync.
"""

from collections.abc import Iterable, Sequence

import structlog

from domain.events import ConversationCreated, Event, MemberAdded, MemberRemoved
from projections import metrics
from projections.reader import follow
from streams import subjects
from streams.codec import decode
from streams.ports import Bus, Delivery, Log

READER = "fanout"

log_ = structlog.get_logger(__name__)

_ADDRESSED = {ConversationCreated.TOPIC, MemberAdded.TOPIC, MemberRemoved.TOPIC}


class FanoutWorker:
    """Publishes one partition's membership events to the users they concern while `run` runs.

    Delivery is at most once to whoever listens, in log order a user; after an outage events may repeat.
    """

    def __init__(self, log: Log, bus: Bus, *, family: str = subjects.CONV, partition: int) -> None:
        self.stream = subjects.stream(family, partition)
        self._log = log
        self._bus = bus
        self._position: int | None = None

    async def run(self) -> None:
        """Follow the partition from its present end until cancelled."""
        await follow(self._log, self.stream, READER, self)

    async def position(self) -> int:
        """Where this process left off; at its start, the end of the stream."""
        if self._position is None:
            self._position = await self._log.last_sequence(self.stream)
        return self._position

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Publish what concerns users, and pass over the rest without decoding it."""
        for delivery in deliveries:
            if delivery.headers.get(subjects.TYPE) in _ADDRESSED:
                await self._publish(delivery)
            self._position = delivery.sequence
        return deliveries[-1].sequence

    async def idle(self) -> None:
        """Nothing to check: the place is this process's own."""

    async def _publish(self, delivery: Delivery) -> None:
        headers = {
            **delivery.headers,
            subjects.NATS_STREAM: delivery.stream,
            subjects.NATS_SUBJECT: delivery.subject,
            subjects.NATS_SEQUENCE: str(delivery.sequence),
        }
        try:
            event = decode(delivery)
        except Exception as error:  # noqa: BLE001  # an event nobody can read must not silence those after it
            log_.error("event not fanned out", stream=delivery.stream, sequence=delivery.sequence, error=repr(error))
            return
        for user_id in _concerned(event):
            await self._bus.publish(subjects.live_user(user_id), delivery.data, headers)
            metrics.FANNED_OUT.labels(self.stream).inc()


def _concerned(event: Event) -> Iterable[str]:
    match event:
        case ConversationCreated():
            return event.members
        case MemberAdded() | MemberRemoved():
            return (event.user_id,)
        case _:
            return ()
