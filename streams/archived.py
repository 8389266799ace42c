"""A log that may have forgotten its beginning, and the archive that has it, read as one log.

Only reading differs from the log's own. What the log gives is trusted where nothing after the last event given was
trimmed; trimming only goes forward, so asking for the first sequence after the events arrived is asking late enough.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from streams import subjects
from streams.ports import Archive, ArchiveUnavailable, Consumer, Delivery, Log, LogUnavailable, Record
from streams.topology import Topology

CHUNK_EVENTS: Final = 512  # held until it is known that nothing is missing before them
CHUNK_BYTES: Final = 4 * 1024 * 1024


class ArchivedLog:
    """See `streams.ports.Log`.

    Args:
        archive: `None` where there is none: a trimmed log is then unavailable to who needs its beginning.
    """

    def __init__(self, log: Log, archive: Archive | None) -> None:
        self._log = log
        self._archive = archive

    async def ensure(self, topology: Topology) -> None:
        """See `streams.ports.Log.ensure`."""
        await self._log.ensure(topology)

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        """See `streams.ports.Log.append`."""
        return await self._log.append(stream, records, expected_last_sequence=expected_last_sequence)

    async def last_sequence(self, stream: str) -> int:
        """See `streams.ports.Log.last_sequence`."""
        return await self._log.last_sequence(stream)

    async def trimmed(self, stream: str) -> int:
        """See `streams.ports.Log.trimmed`: of the log itself."""
        return await self._log.trimmed(stream)

    async def trim(self, stream: str, up_to_sequence: int) -> None:
        """See `streams.ports.Log.trim`."""
        await self._log.trim(stream, up_to_sequence)

    async def last(self, stream: str, subject: str | None = None) -> Delivery | None:
        """See `streams.ports.Log.last`. Of a subject that was trimmed whole, the archive's newest."""
        found = await self._log.last(stream, subject)
        if found is not None:
            return found
        if subject is None or subjects.stays(subject) or not (trimmed := await self._log.trimmed(stream)):
            return None
        archive = await self._archive_up_to(stream, trimmed)
        found = await archive.last(stream, subject, up_to_sequence=trimmed)
        # Somebody may have appended meanwhile; the log's is then newer.
        return await self._log.last(stream, subject) or found

    async def read(
        self,
        stream: str,
        *,
        subject: str | None = None,
        after_sequence: int = 0,
        up_to_sequence: int | None = None,
    ) -> AsyncGenerator[Delivery]:
        """See `streams.ports.Log.read`."""
        end = await self._log.last_sequence(stream) if up_to_sequence is None else up_to_sequence
        given = after_sequence
        stays = subject is not None and subjects.stays(subject)
        reading = chunks(self._log.read(stream, subject=subject, after_sequence=given, up_to_sequence=end))
        async with aclosing(reading) as held:
            async for chunk in held:
                trimmed = 0 if stays else min(await self._log.trimmed(stream), end)
                if trimmed > given:
                    async with aclosing(self.archived(stream, subject, given, trimmed)) as archived:
                        async for delivery in archived:
                            yield delivery
                    given = trimmed
                for delivery in chunk:
                    if delivery.sequence > given:
                        yield delivery
                        given = delivery.sequence

    async def consume(self, stream: str, reader: str, *, after_sequence: int) -> Consumer:
        """See `streams.ports.Log.consume`."""
        consumer = await self._log.consume(stream, reader, after_sequence=after_sequence)
        return _ArchivedConsumer(self, consumer, stream, after_sequence)

    async def place(self, stream: str, reader: str) -> int | None:
        """See `streams.ports.Log.place`."""
        return await self._log.place(stream, reader)

    async def publish_dead(self, subject: str, record: Record) -> None:
        """See `streams.ports.Log.publish_dead`."""
        await self._log.publish_dead(subject, record)

    async def archived(self, stream: str, subject: str | None, after: int, up_to: int) -> AsyncGenerator[Delivery]:
        """What the log was trimmed of, in order.

        Raises:
            ArchiveUnavailable: the archive does not answer. LogUnavailable: it does not have all of it.
        """
        archive = await self._archive_up_to(stream, up_to)
        async for delivery in archive.read(stream, subject=subject, after_sequence=after, up_to_sequence=up_to):
            yield delivery

    async def _archive_up_to(self, stream: str, up_to: int) -> Archive:
        if self._archive is None:
            raise ArchiveUnavailable(f"{stream} was trimmed up to {up_to:,}, and there is no archive")
        if (position := await self._archive.position(stream)) < up_to:
            raise LogUnavailable(f"{stream} was trimmed up to {up_to:,} and archived up to {position:,} only")
        return self._archive


class _ArchivedConsumer:
    """See `streams.ports.Consumer`. Deliveries without a gap cost no question."""

    def __init__(self, log: ArchivedLog, consumer: Consumer, stream: str, after_sequence: int) -> None:
        self._log = log
        self._consumer = consumer
        self._stream = stream
        self._given = after_sequence
        self._held: list[Delivery] = []  # came from the log, after what is missing
        self._archived: AsyncGenerator[Delivery] | None = None
        self._archived_up_to = 0

    async def fetch(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        """See `streams.ports.Consumer.fetch`."""
        if not self._held:
            self._held = await self._consumer.fetch(max_count, max_wait_s)
        self._held = [delivery for delivery in self._held if delivery.sequence > self._given]
        if not self._held or self._held[-1].sequence - self._given != len(self._held):
            trimmed = await self._log.trimmed(self._stream)
            if trimmed > self._given:
                return await self._from_archive(max_count, trimmed)
        deliveries, self._held = self._held[:max_count], self._held[max_count:]
        if deliveries:
            self._given = deliveries[-1].sequence
        return deliveries

    async def _from_archive(self, max_count: int, trimmed: int) -> list[Delivery]:
        """The next ones from the archive; one reading serves many calls."""
        if self._archived is None:
            self._archived_up_to = trimmed
            self._archived = self._log.archived(self._stream, None, self._given, trimmed)
        deliveries: list[Delivery] = []
        try:
            while len(deliveries) < max_count:
                deliveries.append(await anext(self._archived))
        except StopAsyncIteration:
            self._archived, self._given = None, self._archived_up_to
            return deliveries
        except BaseException:
            self._archived = None  # given is what the caller got: read again from there
            raise
        self._given = deliveries[-1].sequence
        return deliveries

    async def ack(self, sequence: int) -> None:
        """See `streams.ports.Consumer.ack`."""
        await self._consumer.ack(sequence)

    async def pending(self) -> int:
        """See `streams.ports.Consumer.pending`."""
        return await self._log.last_sequence(self._stream) - self._given

    async def close(self) -> None:
        """See `streams.ports.Consumer.close`."""
        reading, self._archived = self._archived, None
        if reading is not None:
            await reading.aclose()
        await self._consumer.close()


async def chunks(
    reading: AsyncIterator[Delivery], *, events_max: int | None = None, bytes_max: int | None = None
) -> AsyncGenerator[list[Delivery]]:
    """Deliveries in lists bounded in events and in bytes (`CHUNK_EVENTS`, `CHUNK_BYTES`); the last may be empty."""
    most_events, most_bytes = events_max or CHUNK_EVENTS, bytes_max or CHUNK_BYTES
    chunk: list[Delivery] = []
    size_bytes = 0
    async for delivery in reading:
        chunk.append(delivery)
        size_bytes += len(delivery.data)
        if len(chunk) >= most_events or size_bytes >= most_bytes:
            yield chunk
            chunk, size_bytes = [], 0
    yield chunk
