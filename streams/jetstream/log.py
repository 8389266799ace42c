"""The log over JetStream: appends, leader reads, pages and consumers, put together."""

import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from streams import subjects
from streams.jetstream import ensure, frames, reader
from streams.jetstream.api import LOOK_S, NO_CONSUMER, NO_MESSAGE, ApiError, call
from streams.jetstream.connection import Connection
from streams.jetstream.consumer import JetStreamConsumer
from streams.jetstream.nodes import JetStreamNodes
from streams.jetstream.publisher import Publisher
from streams.ports import AppendUnknown, Delivery, LogUnavailable, Record, WrongSequence
from streams.topology import Topology

PURGE_S: Final = 60.0  # a million events take the server about two seconds


class JetStreamLog:
    """See `streams.ports.Log`."""

    def __init__(self, connection: Connection, nodes: JetStreamNodes) -> None:
        self._connection = connection
        self._nodes = nodes
        self._publisher = Publisher(connection)

    async def ensure(self, topology: Topology) -> None:
        """See `streams.ports.Log.ensure`; also makes the bucket of node announcements."""
        await ensure.ensure(self._connection, topology)
        await self._nodes.ensure(topology.replicas)

    async def append(self, stream: str, records: Sequence[Record], *, expected_last_sequence: int) -> int:
        """See `streams.ports.Log.append`. The records' subjects say which stream stores them."""
        return await self._publisher.append(records, expected_last_sequence)

    async def last_sequence(self, stream: str) -> int:
        """See `streams.ports.Log.last_sequence`."""
        answer = await call(self._connection, f"STREAM.INFO.{stream}", timeout_s=LOOK_S)
        return int(answer["state"]["last_seq"])

    async def trimmed(self, stream: str) -> int:
        """See `streams.ports.Log.trimmed`. It is a record in the stream `ARCHIVE`."""
        told = await self.last(subjects.ARCHIVE, subjects.trimmed(stream))
        return 0 if told is None else int(told.data)

    async def trim(self, stream: str, up_to_sequence: int) -> None:
        """See `streams.ports.Log.trim`."""
        up_to = min(up_to_sequence, await self.last_sequence(stream))
        while True:
            # In this order: where a record came after the end was looked at, nothing is appended.
            end = await self.last_sequence(subjects.ARCHIVE)
            if up_to <= (told := await self.trimmed(stream)):
                break
            record = Record(subjects.trimmed(stream), b"%d" % up_to)
            with contextlib.suppress(WrongSequence):  # it tells of another stream
                await self.append(subjects.ARCHIVE, [record], expected_last_sequence=end)
        if told >= 1:  # told of no sequence, the server would forget all
            wanted = {"seq": told + 1, "filter": subjects.trimmable(stream)}
            await call(self._connection, f"STREAM.PURGE.{stream}", wanted, timeout_s=PURGE_S)

    async def last(self, stream: str, subject: str | None = None) -> Delivery | None:
        """See `streams.ports.Log.last`."""
        wanted = {"last_by_subj": subject or ">"}
        try:
            answer = await call(self._connection, f"STREAM.MSG.GET.{stream}", wanted, timeout_s=LOOK_S)
        except ApiError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        return Delivery(
            stream,
            message["seq"],
            message["subject"],
            base64.b64decode(message.get("data", "")),
            frames.own_headers_of(base64.b64decode(message.get("hdrs", ""))),
            datetime.fromisoformat(message["time"]),
        )

    def read(
        self,
        stream: str,
        *,
        subject: str | None = None,
        after_sequence: int = 0,
        up_to_sequence: int | None = None,
    ) -> AsyncIterator[Delivery]:
        """See `streams.ports.Log.read`."""
        return reader.read(
            self._connection, stream, subject=subject, after_sequence=after_sequence, up_to_sequence=up_to_sequence
        )

    async def consume(self, stream: str, reader: str, *, after_sequence: int) -> JetStreamConsumer:
        """See `streams.ports.Log.consume`."""
        partition = int(stream.rpartition("-")[2])
        name = subjects.consumer(reader, partition)
        consumer = JetStreamConsumer(self._connection, stream, name, after_sequence)
        try:
            await consumer.open()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    async def place(self, stream: str, reader: str) -> int | None:
        """See `streams.ports.Log.place`. It is the consumer's own, in the memory of the server (of all replicas)."""
        name = subjects.consumer(reader, int(stream.rpartition("-")[2]))
        try:
            info = await call(self._connection, f"CONSUMER.INFO.{stream}.{name}", timeout_s=LOOK_S)
        except ApiError as error:
            if error.err_code == NO_CONSUMER:
                return None
            raise
        return int(info["ack_floor"]["stream_seq"])

    async def publish_dead(self, subject: str, record: Record) -> None:
        """See `streams.ports.Log.publish_dead`."""
        try:
            await self._publisher.store(Record(subject, record.data, record.headers))
        except AppendUnknown as error:
            raise LogUnavailable(f"perhaps not stored: {error}") from error
