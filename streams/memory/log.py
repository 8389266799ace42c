"""The log within one process: the same contract as JetStream's, gone with the process."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from streams import subjects
from streams.memory.bus import MemoryBus
from streams.ports import (
    BATCH_MAX,
    Delivery,
    LogUnavailable,
    Record,
    RecordTooLarge,
    Signal,
    WrongSequence,
)
from streams.topology import Republish, Topology, TopologyMismatch

PAYLOAD_MAX = 1024 * 1024  # nats-server's default, headers included


@dataclass(slots=True)
class _Stream:
    name: str
    republish: Republish | None
    trimmed: int = 0  # up to this sequence, but for what stays
    last_sequence: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)
    places: dict[str, int] = field(default_factory=dict)  # of the readers

    def after(self, sequence: int, up_to_sequence: int | None = None) -> list[Delivery]:
        """What it still has from after one sequence up to another."""
        until = self.last_sequence if up_to_sequence is None else up_to_sequence
        first = bisect_right(self.deliveries, sequence, key=_sequence)
        return self.deliveries[first : bisect_right(self.deliveries, until, key=_sequence)]


def _sequence(delivery: Delivery) -> int:
    return delivery.sequence


class MemoryConsumer:
    """See `streams.ports.Consumer`."""

    def __init__(self, stream: _Stream, reader: str, after_sequence: int) -> None:
        self._stream = stream
        self._reader = reader
        self._given = after_sequence

    async def fetch(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        """See `streams.ports.Consumer.fetch`."""
        try:
            async with asyncio.timeout(max_wait_s), self._stream.grown:
                await self._stream.grown.wait_for(lambda: bool(self._stream.after(self._given)))
        except TimeoutError:
            return []
        deliveries = self._stream.after(self._given)[:max_count]
        if deliveries:
            self._given = deliveries[-1].sequence
        return deliveries

    async def ack(self, sequence: int) -> None:
        """See `streams.ports.Consumer.ack`."""
        places = self._stream.places
        places[self._reader] = max(places[self._reader], sequence)

    async def pending(self) -> int:
        """See `streams.ports.Consumer.pending`."""
        return len(self._stream.after(self._given))

    async def close(self) -> None:
        """See `streams.ports.Consumer.close`."""


class MemoryLog:
    """See `streams.ports.Log`.

    Args:
        bus: where stored events are republished, as the topology says.
    """

    def __init__(self, bus: MemoryBus | None = None) -> None:
        self._bus = bus
        self._partitions: int | None = None
        self._streams: dict[str, _Stream] = {}

    async def ensure(self, topology: Topology) -> None:
        """See `streams.ports.Log.ensure`."""
        if self._partitions is not None and self._partitions != topology.partitions:
            raise TopologyMismatch(
                f"the log was made with {self._partitions} partitions and this start asks for {topology.partitions}"
            )
        self._partitions = topology.partitions
        for spec in topology.streams():
            self._streams.setdefault(spec.name, _Stream(spec.name, spec.republish))

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        """See `streams.ports.Log.append`."""
        target = self._stream(stream)
        if not 1 <= len(records) <= BATCH_MAX:
            raise RecordTooLarge(f"an append has 1 to {BATCH_MAX:,} records, not {len(records):,}")
        for record in records:
            _check_size(record)
        await asyncio.sleep(0)  # as over a network: others run before the outcome is known
        if target.last_sequence != expected_last_sequence:
            raise WrongSequence(f"wrong last sequence: {target.last_sequence}")
        await self._store(target, records)
        return expected_last_sequence + len(records)

    async def last_sequence(self, stream: str) -> int:
        """See `streams.ports.Log.last_sequence`."""
        return self._stream(stream).last_sequence

    async def trimmed(self, stream: str) -> int:
        """See `streams.ports.Log.trimmed`."""
        return self._stream(stream).trimmed

    async def trim(self, stream: str, up_to_sequence: int) -> None:
        """See `streams.ports.Log.trim`."""
        target = self._stream(stream)
        up_to = min(up_to_sequence, target.last_sequence)
        if up_to > target.trimmed:
            stay = [delivery for delivery in target.after(0, up_to) if subjects.stays(delivery.subject)]
            target.deliveries = stay + target.after(up_to)
            target.trimmed = up_to

    async def last(self, stream: str, subject: str | None = None) -> Delivery | None:
        """See `streams.ports.Log.last`."""
        deliveries = reversed(self._stream(stream).deliveries)
        return next((delivery for delivery in deliveries if subject in (None, delivery.subject)), None)

    async def read(
        self,
        stream: str,
        *,
        subject: str | None = None,
        after_sequence: int = 0,
        up_to_sequence: int | None = None,
    ) -> AsyncIterator[Delivery]:
        """See `streams.ports.Log.read`."""
        for delivery in self._stream(stream).after(after_sequence, up_to_sequence):
            if subject in (None, delivery.subject):
                yield delivery

    async def consume(self, stream: str, reader: str, *, after_sequence: int) -> MemoryConsumer:
        """See `streams.ports.Log.consume`."""
        source = self._stream(stream)
        source.places[reader] = after_sequence
        return MemoryConsumer(source, reader, after_sequence)

    async def place(self, stream: str, reader: str) -> int | None:
        """See `streams.ports.Log.place`."""
        return self._stream(stream).places.get(reader)

    async def publish_dead(self, subject: str, record: Record) -> None:
        """See `streams.ports.Log.publish_dead`."""
        dead = Record(subject, record.data, record.headers)
        _check_size(dead)
        await self._store(self._stream("DEAD"), [dead])

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            raise LogUnavailable(f"there is no stream {name}")
        return self._streams[name]

    async def _store(self, stream: _Stream, records: Sequence[Record]) -> None:
        now = datetime.now(UTC)
        for record in records:
            stream.last_sequence += 1
            place = (stream.name, stream.last_sequence, record.subject)
            stream.deliveries.append(Delivery(*place, record.data, dict(record.headers), now))
            self._republish(stream, stream.deliveries[-1])
        async with stream.grown:
            stream.grown.notify_all()

    def _republish(self, stream: _Stream, delivery: Delivery) -> None:
        """Only single-token wildcards at the end of the source are understood: what the topology uses."""
        if self._bus is None or stream.republish is None:
            return
        prefix = stream.republish.source.removesuffix("*")
        token = delivery.subject.removeprefix(prefix)
        if token == delivery.subject or "." in token:
            return
        headers = {
            **delivery.headers,
            "Nats-Stream": delivery.stream,
            "Nats-Subject": delivery.subject,
            "Nats-Sequence": str(delivery.sequence),
        }
        destination = stream.republish.destination.replace("{{wildcard(1)}}", token)
        self._bus.emit(Signal(destination, delivery.data, headers))


def _check_size(record: Record) -> None:
    size_bytes = len(record.data) + sum(len(name) + len(value) + 4 for name, value in record.headers.items())
    if size_bytes > PAYLOAD_MAX:
        raise RecordTooLarge(f"{size_bytes:,} bytes, and the log takes {PAYLOAD_MAX:,}")
