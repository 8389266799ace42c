"""Judging a batch: each archived event against its digest and the log's, all of them against the anchor.

Where archive and log do not agree, the one that leads to the anchor is believed; and where neither does, the one that
has the digest that was kept beside the event.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from projections.archive import chain, raw
from projections.archive.batches import rows_of
from projections.evidence.archived_events import Archived, ArchivedEvents, Batch
from projections.evidence.findings import ARCHIVE, LOG, Finding, Findings
from projections.evidence.parts import BATCHES
from streams import subjects
from streams.ports import Delivery

OVERRULED_MAX: Final = 10_000  # events that the archive is wrong about and that are remembered


class Judge:
    """Of one stream, batch after batch.

    Args:
        trimmed: up to which position the log has forgotten, but for what stays.

    Attributes:
        overruled: of positions where the archive is wrong, what is believed; `None` where nothing is.
    """

    def __init__(self, stream: str, archive: ArchivedEvents, findings: Findings, *, trimmed: int) -> None:
        self.overruled: dict[int, Delivery | None] = {}
        self._stream = stream
        self._archive = archive
        self._findings = findings
        self._trimmed = trimmed
        self._starts = {chain.FIRST}  # where the chain may go on from
        self._passed = 0  # the last position that was judged

    def judge(self, batch: Batch, in_archive: Sequence[Archived], in_log: Sequence[Delivery]) -> list[Delivery]:
        """The events of a batch that are believed; what is wrong is found."""
        before = self._findings.count
        archived = self._once(in_archive)
        logged = {delivery.sequence: delivery for delivery in in_log}
        anchor = _bytes_of(batch.link)
        by_archive = _leads(self._starts, [one.delivery for one in archived.values()], anchor)
        by_log = not by_archive and len(logged) >= batch.events and _leads(self._starts, in_log, anchor)
        believed: dict[int, Delivery] = {}
        for sequence in sorted(archived.keys() | logged.keys()):
            one = archived.get(sequence)
            event = self._compare(sequence, one, logged.get(sequence), by_archive, by_log)
            if event is not None:
                believed[sequence] = event
            if one is not None and event is not one.delivery and len(self.overruled) < OVERRULED_MAX:
                self.overruled[sequence] = event
        self._count(batch, in_archive, believed)
        self._find_holes(batch, sorted(archived.keys() | logged.keys()))
        events = list(believed.values())
        proven = by_archive or by_log or _leads(self._starts, events, anchor)
        if not proven and not self._archive.is_unreadable(batch.last):
            what = "the chain does not lead to this anchor"
            if self._findings.count == before:
                what += ": it was changed, or events were together with their digests"
            self.found(ARCHIVE, BATCHES, batch.last, what)
        # After a break the chain may go on from what is there, or from the anchor: so the next break is its own.
        self._starts = {anchor} if proven else {anchor, *(_link(start, events) for start in self._starts)}
        return events

    def found(self, store: str, table: str, sequence: int, what: str, event: Delivery | None = None) -> None:
        """Something is not as it was."""
        id_ = None if event is None else _conversation_of(event)
        version = "" if event is None else event.headers.get(subjects.VERSION, "")
        number = f"version {version}" if version else ""
        self._findings.add(Finding(store, table, self._stream, sequence, what, id_, number))

    def _find_holes(self, batch: Batch, positions: Sequence[int]) -> None:
        """A log gives every position to an event: where there never was one in the archive, the log had lost it."""
        before, self._passed = self._passed, batch.last
        if batch.has_no_hole and batch.first == before + 1:
            return
        for position in (*positions, batch.last + 1):
            if position > before + 1 and not (batch.has_no_hole and before >= batch.first - 1):
                gone = f"positions {before + 1} to {position - 1} were lost before they were archived"
                self.found(LOG, "", position - 1, gone)
            before = max(before, position)

    def _once(self, in_archive: Iterable[Archived]) -> dict[int, Archived]:
        archived: dict[int, Archived] = {}
        for one in in_archive:
            if archived.setdefault(one.sequence, one) is not one:
                self.found(ARCHIVE, raw.TABLE, one.sequence, "it is there more than once", one.delivery)
        return archived

    def _compare(
        self, sequence: int, archived: Archived | None, logged: Delivery | None, by_archive: bool, by_log: bool
    ) -> Delivery | None:
        """The event that is believed of one position."""
        if archived is None:
            if not self._archive.is_unreadable(sequence):
                self.found(ARCHIVE, raw.TABLE, sequence, "it is missing, and the log has it", logged)
            return logged
        if logged is None and (sequence > self._trimmed or subjects.stays(archived.delivery.subject)):
            self.found(LOG, "", sequence, "it is missing, and the archive has it", archived.delivery)
        differing = [] if logged is None else _differing(archived.delivery, logged)
        if logged is None or not differing:
            return self._alone(archived, is_right=by_archive or logged is not None)
        its = f"its {', '.join(differing)}"
        if differing == ["stored_at"]:
            # The chain does not say, but the log's server has a checksum over it.
            self.found(ARCHIVE, raw.TABLE, sequence, f"{its} is not the log's", logged)
            return logged
        if by_log or (not by_archive and chain.digest(logged) == archived.digest):
            self.found(ARCHIVE, raw.TABLE, sequence, f"{its} differs from the log's, which is right", logged)
            return logged
        if by_archive or archived.intact:
            self.found(LOG, "", sequence, f"{its} differs from the archive's, which is right", archived.delivery)
            return archived.delivery
        self.found(ARCHIVE, raw.TABLE, sequence, f"{its} differs from the log's, and neither is right", logged)
        return None

    def _alone(self, archived: Archived, *, is_right: bool) -> Delivery | None:
        if archived.intact:
            return archived.delivery
        changed = "its digest, or a column beside it, was changed" if is_right else "it is not what its digest says"
        self.found(ARCHIVE, raw.TABLE, archived.sequence, changed, archived.delivery)
        return archived.delivery if is_right else None

    def _count(self, batch: Batch, in_archive: Sequence[Archived], believed: Mapping[int, Delivery]) -> None:
        is_unreadable = self._archive.is_unreadable(batch.last)
        if is_unreadable or len(in_archive) != batch.events:
            there = believed.keys() | {one.sequence for one in in_archive}
            gone = [n for n in range(batch.first, batch.last + 1) if n not in there] if batch.has_no_hole else []
            if is_unreadable:
                for sequence in gone:
                    if sequence > self._trimmed:
                        self.found(LOG, "", sequence, "it is missing, and the archive cannot be read there")
                return
            what = f"the batch from {batch.first} on had {batch.events} events, and has {len(in_archive)}"
            self.found(ARCHIVE, BATCHES, batch.last, what)
            for sequence in gone:
                self.found(ARCHIVE, raw.TABLE, sequence, "it is missing, and the log does not have it")
        if len(believed) == batch.events and sum(map(_is_undecodable, believed.values())) != batch.undecodable:
            self.found(ARCHIVE, BATCHES, batch.last, "undecodable is not how many cannot be decoded")


def _link(start: bytes, events: Iterable[Delivery]) -> bytes:
    for event in events:
        start = chain.link(start, event)
    return start


def _leads(starts: Iterable[bytes], events: Sequence[Delivery], anchor: bytes) -> bool:
    return any(_link(start, events) == anchor for start in starts)


def _bytes_of(link: str) -> bytes:
    try:
        return bytes.fromhex(link)
    except ValueError:
        return b""  # to which nothing leads


def _differing(archived: Delivery, logged: Delivery) -> list[str]:
    names = ("subject", "headers", "data", "stored_at")
    return [name for name in names if getattr(archived, name) != getattr(logged, name)]


def _is_undecodable(delivery: Delivery) -> bool:
    try:
        rows_of(delivery)
    except Exception:  # noqa: BLE001  # whatever it is, the archiver counted it
        return True
    return False


def _conversation_of(delivery: Delivery) -> int | None:
    id_ = subjects.aggregate_id(delivery.subject) if delivery.subject.count(".") >= 2 else ""
    is_conversation = subjects.family_of(delivery.subject) == subjects.CONV and id_.isdecimal() and len(id_) < 20
    return int(id_) if is_conversation else None
