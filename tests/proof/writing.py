"""Writing a corpus straight to the log: atomic batches of up to 1,000 events, one stream's beside the other's.

A stream's sequence says how much of it was written, so a writing that was broken off goes on where it was.
"""

import asyncio
import time
from typing import Final

from streams import codec
from streams.ports import BATCH_MAX, AppendUnknown, Log, LogUnavailable, Record, WrongSequence
from tests.proof.bars import Bar
from tests.proof.corpus import Corpus

TRY_FOR_S: Final = 60.0  # the disk may be another's for a while
TRY_AGAIN_S: Final = 0.2
METADATA: Final = codec.Metadata()


async def write(log: Log, corpus: Corpus, bar: Bar) -> int:
    """Write all of a corpus that is not there yet; how many events were written.

    Raises:
        LogError: the log did not take them. Begin again.
    """
    lines: dict[str, _Line] = {}
    written, messages = 0, 0
    try:
        for stream, subject, event in corpus.events():
            line = lines.get(stream)
            if line is None:
                line = lines[stream] = _Line(log, stream, await log.last_sequence(stream))
            messages += event.TOPIC == "message.posted"
            if line.there:
                line.there -= 1
                continue
            line.records.append(codec.encode(event, subject, METADATA))
            written += 1
            if len(line.records) == BATCH_MAX:
                await line.send()
                bar(messages)
        for line in lines.values():
            await line.send()
            await line.sent()
        bar(messages)
    finally:
        for line in lines.values():
            line.give_up()
    return written


class _Line:
    """What is to be appended to a stream, and what is being appended: the next batch is made meanwhile."""

    def __init__(self, log: Log, stream: str, last: int) -> None:
        self.there = last  # so many of the corpus's events are there already
        self.records: list[Record] = []
        self._log, self._stream, self._last = log, stream, last
        self._sending: asyncio.Task[int] | None = None

    async def send(self) -> None:
        """Begin to append what was put together."""
        await self.sent()
        if self.records:
            records, self.records = self.records, []
            self._sending = asyncio.create_task(self._append(records))
            await asyncio.sleep(0)  # so that it is on its way

    async def _append(self, records: list[Record]) -> int:
        """Nobody else appends: after an unknown outcome it is tried again, and refused if it has landed."""
        deadline_s = time.monotonic() + TRY_FOR_S
        while True:
            try:
                return await self._log.append(self._stream, records, expected_last_sequence=self._last)
            except WrongSequence:
                if (last := await self._log.last_sequence(self._stream)) != self._last + len(records):
                    raise
                return last
            except (AppendUnknown, LogUnavailable):
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(TRY_AGAIN_S)

    async def sent(self) -> None:
        """Wait until it is appended."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            self._last = await sending

    def give_up(self) -> None:
        """Where something failed."""
        if self._sending is not None:
            self._sending.cancel()
