"""Signals of members to members: who is typing, and how far somebody has read. Never stored, at most once.

Whoever has a signal for the members of a conversation publishes it to `signal.conv.<id>`; `SignalForwarder` knows the
members and brings it to them, the same way as the conversation's events: to each, or to the conversation. So gateways
need not know who is in a conversation, and a large one costs nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog
from psycopg import Error as PostgresError

from domain.errors import Invalid
from domain.events import ReadMoved
from domain.fanout import signals, writes
from domain.ids import parse_id, partition_of, slot_of
from projections import metrics
from projections.audience import Audience
from projections.fanout import READER, FanoutWorker
from projections.reader import follow
from streams import subjects
from streams.codec import decode
from streams.ports import Bus, BusError, Delivery, Log, LogError, Signal, Subscription

TYPING: Final = "typing"
RECEIPT: Final = "receipt"
WAITING_MAX: Final = 2_000  # signals; one more is dropped: it would be late, and the next one says the same
SUBSCRIBE_AGAIN_S: Final = 1.0

log_ = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class SignalForwarder:
    """Brings signals to the members of conversations while `run` runs. One a process that fans out.

    Every such process hears all signals, and forwards those of conversations whose partition it fans out: as they came,
    payload and headers, if the sender is a member and there are not too many members for signals; between two users of
    whom one has blocked the other, none. Those of one sender stay in order.

    Args:
        workers: the fan-outs of this process, by partition, as they are at any time; they know the members.
        limit: members up to which a signal is addressed to each.
    """

    def __init__(self, bus: Bus, workers: Mapping[int, FanoutWorker], *, partitions: int, limit: int) -> None:
        self._bus = bus
        self._partitions = partitions
        self._workers = workers
        self._limit = limit
        self._waiting: asyncio.Queue[Signal] = asyncio.Queue(WAITING_MAX)

    async def run(self) -> None:
        """Forward until cancelled."""
        metrics.SIGNALS_WAITING.set_function(self._waiting.qsize)
        subscription = await self._subscribe()
        try:
            while True:
                signal = await self._waiting.get()
                try:
                    outcome = await self._forward(signal)
                except (LogError, BusError, PostgresError) as error:
                    log_.warning("signal dropped", subject=signal.subject, error=str(error) or repr(error))
                    outcome = "dropped"
                metrics.SIGNALS.labels(outcome).inc()
        finally:
            await subscription.close()

    async def _subscribe(self) -> Subscription:
        while True:
            try:
                return await self._bus.subscribe(subjects.signal_conversation("*"), self._take)
            except BusError as error:
                log_.warning("signals are not heard yet", error=str(error))
                await asyncio.sleep(SUBSCRIBE_AGAIN_S)

    def _take(self, signal: Signal) -> None:
        try:
            self._waiting.put_nowait(signal)
        except asyncio.QueueFull:
            metrics.SIGNALS.labels("dropped").inc()

    async def _forward(self, signal: Signal) -> str:
        """What became of a signal: `forwarded`, `refused`, or `elsewhere` when another process forwards it."""
        kind, sender = signal.headers.get(subjects.SIGNAL), signal.headers.get(subjects.SENDER, "")
        try:
            conversation_id = parse_id(signal.subject.rpartition(".")[2])
        except Invalid:
            return "refused"
        worker = self._workers.get(partition_of(slot_of(conversation_id), self._partitions))
        if worker is None:
            return "elsewhere"
        audience = await worker.audiences.now(conversation_id)
        if kind not in (TYPING, RECEIPT) or audience is None or not signals(audience.count):
            return "refused"
        addresses = dict(audience.addresses or {})
        if sender not in addresses or await _is_blocked(worker, audience, addresses):
            return "refused"
        if kind == RECEIPT:
            del addresses[sender]  # the reader's own sessions have the event
        if writes(audience.count, self._limit):
            await self._bus.publish_many(list(addresses.values()), signal.data, signal.headers)
        else:
            await self._bus.publish(subjects.live_conversation(str(conversation_id)), signal.data, signal.headers)
        return "forwarded"


async def _is_blocked(worker: FanoutWorker, audience: Audience, addresses: dict[str, str]) -> bool:
    if audience.kind != "direct" or len(addresses) != 2:
        return False
    return await worker.blocked_pairs.has(*addresses)


class ReceiptsWorker:
    """Makes of one partition's moved read markers signals for the other members, while `run` runs.

    From the present end on: what was missed is in the read model. A marker may be told twice, and never falls.
    """

    def __init__(self, log: Log, bus: Bus, *, partition: int) -> None:
        self.stream = subjects.stream(subjects.USER, partition)
        self._log = log
        self._bus = bus
        self._position: int | None = None

    @property
    def told_sequence(self) -> int | None:
        """Up to where everything was told; `None` before that is settled."""
        return self._position

    async def run(self) -> None:
        """Follow the partition until cancelled."""
        await follow(self._log, self.stream, READER, self, pace_s=0)

    async def position(self) -> int:
        """Where this process left off; at its start, the end of the stream."""
        if self._position is None:
            self._position = await self._log.last_sequence(self.stream)
        return self._position

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Tell of each marker that moved, and pass over the rest without decoding it."""
        for delivery in deliveries:
            if delivery.headers.get(subjects.TYPE) == ReadMoved.TOPIC:
                await self._tell(delivery)
            self._position = delivery.sequence
        return deliveries[-1].sequence

    async def idle(self) -> int:
        """Nothing to check: the place is this process's own."""
        return await self.position()

    async def _tell(self, delivery: Delivery) -> None:
        try:
            event = decode(delivery)
        except Exception as error:  # noqa: BLE001  # it must not silence those after it
            log_.error(
                "unreadable event",
                stream=delivery.stream,
                sequence=delivery.sequence,
                correlation_id=delivery.headers.get(subjects.CORRELATION),
                error=repr(error),
            )
            return
        assert isinstance(event, ReadMoved)
        conversation_id = str(event.conversation_id)
        payload = {
            "type": RECEIPT,
            "conversation_id": conversation_id,
            "user_id": event.actor_id,
            "read_seq": event.seq,
        }
        headers = {subjects.SIGNAL: RECEIPT, subjects.SENDER: event.actor_id}
        subject = subjects.signal_conversation(conversation_id)
        await self._bus.publish(subject, _encode({"signal": payload}), headers)
