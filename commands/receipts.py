"""Receipts of long ago: looked up in the read model, and while that does not answer, in the log.

The log is the slower way: it is read from the conversation's first event on. So it is read for one receipt of a
partition at a time, and not of a conversation that is too long for that.
"""

import asyncio
from typing import Final

from commands.ports import ReceiptLookup
from domain.errors import Unavailable
from domain.events import MessagePosted
from domain.messages import Receipt
from streams import codec, subjects
from streams.ports import Log

READ_MODEL_S: Final = 0.5  # it answers in milliseconds, or is down or behind; the conversation waits meanwhile
READ_MAX: Final = 10_000  # events of the log


class Receipts:
    """See `commands.ports.ReceiptLookup`; of one partition's conversations."""

    def __init__(self, read_model: ReceiptLookup, log: Log, *, partition: int) -> None:
        self._read_model = read_model
        self._log = log
        self._partition = partition
        self._reading = asyncio.Lock()

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        """See `commands.ports.ReceiptLookup.receipt`. `LogUnavailable` if neither can be read."""
        try:
            async with asyncio.timeout(READ_MODEL_S):
                return await self._read_model.receipt(
                    conversation_id, sender_id, client_msg_id, min_version=min_version
                )
        except (Unavailable, TimeoutError):
            if min_version > READ_MAX:
                raise Unavailable("the read model does not answer, and the conversation is a long one") from None
        async with self._reading:
            return await self._in_the_log(conversation_id, sender_id, client_msg_id, min_version)

    async def _in_the_log(
        self, conversation_id: int, sender_id: str, client_msg_id: str, min_version: int
    ) -> Receipt | None:
        """The first of its kind among the events up to a version, of which none may be missing."""
        stream = subjects.stream(subjects.CONV, self._partition)
        subject = subjects.aggregate(subjects.CONV, self._partition, str(conversation_id))
        version = 0
        async for delivery in self._log.read(stream, subject=subject):
            version += 1
            headers = delivery.headers
            if headers.get(subjects.VERSION) != str(version):
                break
            if headers[subjects.ACTOR] == sender_id and headers[subjects.TYPE] == MessagePosted.TOPIC:
                event = codec.decode(delivery)
                if isinstance(event, MessagePosted) and event.client_msg_id == client_msg_id:
                    return Receipt.of(event)
            if version == min_version:
                return None
        raise Unavailable("neither the read model nor the log could be read that far")
