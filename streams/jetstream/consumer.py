"""A durable pull consumer with overlapped pulls: deliveries wait here before they are asked for.

Nothing is skipped: the consumer's own numbering of deliveries shows a gap, and after any doubt (a broken connection,
a gap, silence) the place is looked up again and the consumer made anew right after the last delivery that arrived.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.subscription import Subscription

from streams.jetstream import frames
from streams.jetstream.api import LOOK_S, MAKE_S, NO_CONSUMER, ApiError, call
from streams.jetstream.connection import Connection, RequestError
from streams.ports import Delivery, LogUnavailable

BUFFER_MAX = 2_000  # deliveries held or asked for, or as many as are taken at once; a worker takes 500 at a time
BUFFER_BYTES = 8 * 1024 * 1024  # half of it held at most when asking, and two pulls of a quarter each
PULL_BYTES = BUFFER_BYTES // 4
PULL_S = 30.0
HEARTBEAT_S = 1.0
SILENCE_S = 2.5  # two heartbeats missed: the pulls are gone
ACK_WAIT_S = 3_600  # redelivery is not how we recover
ACK_PENDING_MAX = 20_000  # delivered and not acked: beyond it the server waits
ENDED_PULL = {"404", "408", "409"}
NANOSECONDS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JetStreamConsumer:
    """See `streams.ports.Consumer`. Made by `JetStreamLog.consume`.

    Args:
        forgotten_after_s: after which silence of ours the server may forget the place; `None`: never.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        name: str,
        after_sequence: int,
        *,
        forgotten_after_s: float | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._name = name
        self._forgotten_after_s = forgotten_after_s
        self._last = after_sequence  # the newest that arrived
        self._number = 0  # the consumer's own number of it
        self._buffer: deque[Delivery] = deque()
        self._buffer_bytes = 0
        self._replies: deque[tuple[int, str]] = deque()  # where to ack, oldest first; at most ACK_PENDING_MAX
        self._asked = 0  # deliveries that open pulls may still bring
        self._held_max = BUFFER_MAX
        self._heard_s = 0.0
        self._stirred = asyncio.Event()
        self._lost = True
        self._closed = False
        self._subscription: Subscription | None = None
        self._loop = asyncio.get_running_loop()
        self._forget_loss = connection.on_loss(self._on_loss)

    async def open(self) -> None:
        """Take the place.

        Raises:
            LogUnavailable: the log cannot be reached.
        """
        await self._resume()

    # -- the port -------------------------------------------------------------------------------------------

    async def fetch(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        """See `streams.ports.Consumer.fetch`."""
        deadline_s = self._loop.time() + max_wait_s
        self._held_max = max(self._held_max, max_count)
        while not self._buffer:
            if self._lost:
                if not await self._connection.wait_connected(max(0.0, deadline_s - self._loop.time())):
                    raise LogUnavailable("not connected to NATS")
                await self._resume()
            self._stirred.clear()
            now_s = self._loop.time()
            if now_s >= deadline_s:
                return []
            if now_s >= self._heard_s + SILENCE_S:
                self._lost = True
                continue
            try:
                async with asyncio.timeout_at(min(deadline_s, self._heard_s + SILENCE_S)):
                    await self._stirred.wait()
            except TimeoutError:
                continue
        buffer = self._buffer
        deliveries = [buffer.popleft() for _ in range(min(max_count, len(buffer)))]
        self._buffer_bytes -= sum([len(delivery.data) for delivery in deliveries])
        self._pull()
        return deliveries

    async def ack(self, sequence: int) -> None:
        """See `streams.ports.Consumer.ack`."""
        reply = None
        while self._replies and self._replies[0][0] <= sequence:
            reply = self._replies.popleft()[1]
        if reply is not None:
            self._connection.tell(reply, b"+ACK")

    async def pending(self) -> int:
        """See `streams.ports.Consumer.pending`."""
        info = await call(self._connection, f"CONSUMER.INFO.{self._stream}.{self._name}")
        # By the numbers: what arrives while this is asked must not count twice.
        given = self._number - len(self._buffer)
        return max(0, int(info["num_pending"]) + int(info["delivered"]["consumer_seq"]) - given)

    async def close(self) -> None:
        """See `streams.ports.Consumer.close`."""
        if self._closed:
            return
        self._closed = True
        self._forget_loss()
        await self._unsubscribe()

    async def forget(self) -> None:
        """Close it, and give its place up.

        Raises:
            LogUnavailable: it is closed, and the place perhaps still there.
        """
        await self.close()
        await self._delete(f"{self._stream}.{self._name}")

    # -- the place ------------------------------------------------------------------------------------------

    def _on_loss(self, _reason: str) -> None:
        self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._stirred.set()

    async def _resume(self) -> None:
        """Have a consumer that continues after the last delivery that arrived, and pull from it."""
        self._lost = False
        try:
            await self._unsubscribe()
            await self._connection.flush()  # before looking: what open pulls still bring would be missed
            self._number = await self._place()
            self._subscription = await self._connection.hear(self._connection.new_inbox(), self._on_message)
        except BaseException as error:
            self._lost = True
            if isinstance(error, RequestError):
                raise LogUnavailable(f"consuming {self._stream}: {error}") from error
            raise
        self._asked = 0
        self._heard_s = self._loop.time()
        self._pull()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.unhear(subscription)

    async def _place(self) -> int:
        """The number of the consumer's last delivery, on a consumer that stands right after `_last`."""
        where = f"{self._stream}.{self._name}"
        try:
            info = await call(self._connection, f"CONSUMER.INFO.{where}", timeout_s=LOOK_S)
        except ApiError as error:
            if error.err_code != NO_CONSUMER:
                raise
        else:
            if info["delivered"]["stream_seq"] == self._last:
                return int(info["delivered"]["consumer_seq"])
            await self._delete(where)
        self._replies.clear()  # they name deliveries of the consumer that is gone
        config = {
            "name": self._name,
            "durable_name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last + 1,
            "ack_policy": "all",
            "ack_wait": ACK_WAIT_S * NANOSECONDS,
            "max_ack_pending": ACK_PENDING_MAX,
            "replay_policy": "instant",
            "mem_storage": True,
        }
        if self._forgotten_after_s is not None:
            config["inactive_threshold"] = int(self._forgotten_after_s * NANOSECONDS)
        wanted = {"stream_name": self._stream, "config": config}
        await call(self._connection, f"CONSUMER.CREATE.{where}", wanted, timeout_s=MAKE_S)
        return 0

    async def _delete(self, where: str) -> None:
        try:
            await call(self._connection, f"CONSUMER.DELETE.{where}", timeout_s=MAKE_S)
        except ApiError as error:
            if error.err_code != NO_CONSUMER:
                raise

    # -- deliveries -----------------------------------------------------------------------------------------

    def _pull(self) -> None:
        """Ask for more when half of what may be held is free: never more than two pulls are open."""
        held = len(self._buffer) + self._asked
        if self._lost or self._closed or held > self._held_max // 2 or self._buffer_bytes > BUFFER_BYTES // 2:
            return
        if self._subscription is None:
            return
        count = self._held_max - held
        self._asked += count
        request = {
            "batch": count,
            "max_bytes": max(PULL_BYTES, 2 * self._connection.max_payload),
            "expires": int(PULL_S * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_S * NANOSECONDS),
        }
        self._connection.tell(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
            msgspec.json.encode(request),
            reply=self._subscription.subject,
        )

    def _on_message(self, subject: str, reply: str, data: bytes, block: bytes) -> None:
        self._heard_s = self._loop.time()
        if not reply:
            self._on_status(frames.headers_of(block))
            return
        # $JS.ACK.<stream>.<consumer>.<times>.<sequence>.<number>.<nanoseconds>.<pending>; 12 tokens with a domain
        tokens = reply.split(".")
        if len(tokens) > 9:
            tokens = tokens[2:]
        self._asked -= 1
        sequence, number = int(tokens[5]), int(tokens[6])
        if number != self._number + 1:
            self._lose()
            return
        self._number = number
        if sequence <= self._last:
            return  # delivered before
        self._last = sequence
        stored_at = EPOCH + timedelta(microseconds=int(tokens[7]) // 1_000)
        self._buffer.append(Delivery(self._stream, sequence, subject, data, frames.own_headers_of(block), stored_at))
        self._buffer_bytes += len(data)
        self._replies.append((sequence, reply))
        self._stirred.set()
        if self._asked <= self._held_max // 2:
            self._pull()

    def _on_status(self, headers: Mapping[str, str]) -> None:
        status, unserved = headers.get(frames.STATUS), headers.get("Nats-Pending-Messages")
        if status == "100":
            return
        if status in ENDED_PULL and unserved is not None:
            self._asked = max(0, self._asked - int(unserved))
            self._pull()
        else:
            self._lose()  # the consumer was deleted, moved, or is not there
