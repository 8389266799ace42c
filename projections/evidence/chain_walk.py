"""Going along the hash chain of a stream, through archive and log together, batch by batch. What can be believed of it
is handed on, to hold the rows against that were made of it.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from projections.archive import raw
from projections.archive.clickhouse import ClickHouse
from projections.evidence.archived_events import Archived, ArchivedEvents, Batch
from projections.evidence.findings import ARCHIVE, LOG, Findings, StreamReport
from projections.evidence.judging import Judge
from projections.evidence.parts import BATCHES
from streams.ports import Delivery, Log


class _Placed(Protocol):
    @property
    def sequence(self) -> int: ...


P = TypeVar("P", bound=_Placed)


class ChainWalk:
    """Along one stream.

    Args:
        log: by itself, without its archive.
        broken: tables with a part whose checksum does not match.
        kept: the end of the chain in an earlier report: position and link.
    """

    def __init__(
        self,
        log: Log,
        clickhouse: ClickHouse,
        stream: str,
        findings: Findings,
        *,
        broken: frozenset[str],
        kept: tuple[int, str] | None,
    ) -> None:
        self.report = StreamReport(stream)
        self.archive = ArchivedEvents(clickhouse, stream, findings, broken=broken)
        self._log = log
        self._stream = stream
        self._findings = findings
        self._kept = kept
        self._judge: Judge | None = None

    async def believed(self, archived_up_to: int, up_to: int) -> AsyncIterator[Delivery]:
        """All events that can be believed, in order, first those of the archive, then those that only the log has.

        Raises:
            LogUnavailable: the log or the archive does not answer.
        """
        report, trimmed = self.report, await self._log.trimmed(self._stream)
        judge = self._judge = Judge(self._stream, self.archive, self._findings, trimmed=trimmed)
        archive, log = self.archive.read(1, archived_up_to), self._logged(up_to)
        async with aclosing(archive), aclosing(log):
            archived, logged = _Ahead[Archived](archive), _Ahead[Delivery](log)
            async for batch in self.archive.batches(archived_up_to):
                async for one in archived.up_to(batch.first - 1):
                    judge.found(ARCHIVE, raw.TABLE, one.sequence, "it is in no batch", one.delivery)
                async for delivery in logged.up_to(batch.first - 1):
                    judge.found(ARCHIVE, BATCHES, delivery.sequence, "no batch has it", delivery)
                    yield delivery
                in_archive = [one async for one in archived.up_to(batch.last)]
                in_log = [delivery async for delivery in logged.up_to(batch.last)]
                for delivery in judge.judge(batch, in_archive, in_log):
                    yield delivery
                self._check_kept(judge, batch)
                report.sequence, report.link = batch.last, batch.link
                report.batches += 1
                report.events += len(in_archive)
            if trimmed > archived_up_to:
                judge.found(LOG, "", trimmed, f"it was trimmed up to here, and the archive ends at {archived_up_to}")
            if self._kept is not None and self._kept[0] > archived_up_to:
                what = f"the chain that was kept ends at {self._kept[0]}, and the archive before"
                judge.found(ARCHIVE, BATCHES, archived_up_to, what)
            async for delivery in self._not_archived(judge, logged, max(archived_up_to, trimmed), up_to):
                yield delivery

    async def again(self, first: int, last: int) -> dict[int, Delivery | None]:
        """Of positions that were gone through, the events that are believed; `None` where there is none."""
        assert self._judge is not None
        found: dict[int, Delivery | None] = dict.fromkeys(range(first, last + 1))
        async for delivery in self._log.read(self._stream, after_sequence=first - 1, up_to_sequence=last):
            found[delivery.sequence] = delivery
        async for one in self.archive.read(first, last):
            if one.intact or found.get(one.sequence) is None:
                found[one.sequence] = one.delivery if one.intact else None
        overruled = self._judge.overruled
        return found | {sequence: event for sequence, event in overruled.items() if first <= sequence <= last}

    async def _logged(self, up_to: int) -> AsyncGenerator[Delivery]:
        async for delivery in self._log.read(self._stream, up_to_sequence=up_to):
            self.report.logged += 1
            yield delivery

    async def _not_archived(
        self, judge: Judge, logged: "_Ahead[Delivery]", before: int, up_to: int
    ) -> AsyncIterator[Delivery]:
        """Of these there is no anchor yet; but the log has no holes."""
        async for delivery in logged.up_to(up_to):
            for sequence in range(before + 1, delivery.sequence):
                judge.found(LOG, "", sequence, "it is missing, and was not archived yet")
            before = max(before, delivery.sequence)
            yield delivery

    def _check_kept(self, judge: Judge, batch: Batch) -> None:
        """Hold an anchor against the one that was kept elsewhere."""
        if self._kept is None or not self.report.sequence < self._kept[0] <= batch.last:
            return
        if (batch.last, batch.link) != self._kept:
            what = f"the chain is not the one that was kept, which had {self._kept[1][:16]}… at {self._kept[0]}"
            judge.found(ARCHIVE, BATCHES, batch.last, what)


class _Ahead(Generic[P]):
    """A reading of which what is wanted is taken, and the next one is kept."""

    def __init__(self, reading: AsyncIterator[P]) -> None:
        self._reading = reading
        self._next: P | None = None

    async def up_to(self, last: int) -> AsyncIterator[P]:
        """Everything up to a position."""
        while True:
            if self._next is None:
                self._next = await anext(self._reading, None)
            if (one := self._next) is None or one.sequence > last:
                return
            self._next = None
            yield one
