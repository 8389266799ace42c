"""Storing events of an application: all or nothing, each version of an aggregate once.

An insert is one append, on the condition that the subject of each of its aggregates still ends where it did when its
versions were checked. Inserts to other aggregates are not in the way. When no answer comes, the same is tried again on
the same condition, so at most one of the tries lands; and what has landed is known by the name of the insert.
"""

import asyncio
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import TypeAlias

from eventsourcing.persistence import IntegrityError, StoredEvent

from streams import subjects
from streams.jetstream.publisher import Publisher
from streams.ports import AppendUnknown, Delivery, Log, LogError, LogUnavailable, Record, WrongSequence
from streams.recorders.selecting import FIRST_VERSION, read_subject
from streams.recorders.stored import StoredIn, highest_version
from streams.recorders.tails import NEW, Tail, Tails

INSERT_S = 10.0  # longer than a restart of the server takes, so that the outcome is nearly always known
RETRY_S = 0.05

Places: TypeAlias = Mapping[str, Mapping[int, int]]  # by subject and version: which of the events it is


class Inserting:
    """The only way into a stream. Any number of inserts may be under way."""

    def __init__(self, log: Log, publisher: Publisher, stored_in: StoredIn, tails: Tails) -> None:
        self._log = log
        self._publisher = publisher
        self._in = stored_in
        self._tails = tails

    async def insert(self, events: Sequence[StoredEvent]) -> list[int]:
        """Store up to 1,000 events, of one aggregate or of several.

        Returns:
            Their sequences, which follow each other.

        Raises:
            IntegrityError: a version of an aggregate is stored already, or is twice among them.
            DataError, RecordTooLarge: they cannot be stored.
            LogUnavailable, WrongSequence: nothing was stored; of the latter, others were faster for 10 s.
            AppendUnknown: no answer in 10 s. All was stored, or nothing.
        """
        if not events:
            return []
        places = self._places(events)
        name = token_hex(8)
        checked = dict.fromkeys(places, 0)  # up to which sequence of each subject there is none of these versions
        tails = self._supposed(places)
        loop, unknown = asyncio.get_running_loop(), None
        deadline_s = loop.time() + INSERT_S
        while True:
            try:
                tails = tails or {subject: await self._tail(subject) for subject in places}
                for subject, tail in tails.items():
                    stored = await self._stored(subject, places[subject], checked[subject], tail)
                    if stored is None:
                        checked[subject] = tail.sequence
                    elif stored.headers.get(subjects.APPEND) == name:
                        first = stored.sequence - places[subject][int(stored.headers[subjects.VERSION])]
                        return self._sequences(places, tails, first)
                    else:
                        raise IntegrityError(f"{subject}: version {stored.headers[subjects.VERSION]} is stored already")
                expected = {subject: tail.sequence for subject, tail in tails.items()}
                last = await self._publisher.append_by_subject(self._records(events, tails, name), expected)
                return self._sequences(places, tails, last - len(events) + 1)
            except AppendUnknown as error:
                failure: LogError = error
                unknown = error
            except WrongSequence as error:
                failure = error
            except LogUnavailable as error:
                if unknown is None:
                    raise
                failure = error
            if loop.time() > deadline_s:
                raise unknown or failure
            tails = {}
            if not isinstance(failure, WrongSequence):
                await asyncio.sleep(RETRY_S)

    def _places(self, events: Sequence[StoredEvent]) -> Places:
        places: dict[str, dict[int, int]] = {}
        for place, event in enumerate(events):
            versions = places.setdefault(self._in.subject(event.originator_id), {})
            if versions.setdefault(event.originator_version, place) != place:
                raise IntegrityError(f"version {event.originator_version} of {event.originator_id} is there twice")
        return places

    def _supposed(self, places: Places) -> dict[str, Tail]:
        """The tails without asking, if that can be. A supposed one that is wrong is refused by the server."""
        tails = {
            subject: self._tails.get(subject) or (NEW if min(versions) <= FIRST_VERSION else None)
            for subject, versions in places.items()
        }
        return {} if None in tails.values() else {subject: tail for subject, tail in tails.items() if tail}

    async def _tail(self, subject: str) -> Tail:
        last = await self._log.last(self._in.stream, subject)
        return Tail(last.sequence, highest_version(last)) if last else NEW

    async def _stored(self, subject: str, versions: Mapping[int, int], checked: int, tail: Tail) -> Delivery | None:
        """An event up to the tail that has one of the versions."""
        if min(versions) > tail.version or tail.sequence <= checked:
            return None
        deliveries = await read_subject(
            self._log, self._in.stream, subject, after_sequence=checked, up_to_sequence=tail.sequence
        )
        return next((one for one in deliveries if int(one.headers[subjects.VERSION]) in versions), None)

    def _records(self, events: Sequence[StoredEvent], tails: Mapping[str, Tail], name: str) -> list[Record]:
        highest = {subject: tail.version for subject, tail in tails.items()}
        records = []
        for event in events:
            subject = self._in.subject(event.originator_id)
            records.append(self._in.record(event, append_id=name, highest=highest[subject]))
            highest[subject] = max(highest[subject], event.originator_version)
        return records

    def _sequences(self, places: Places, tails: Mapping[str, Tail], first: int) -> list[int]:
        """What an insert answers that begins at a sequence, and what is known from then on."""
        for subject, versions in places.items():
            highest = max(tails[subject].version, *versions)
            self._tails.remember(subject, Tail(first + max(versions.values()), highest))
        return list(range(first, first + sum(map(len, places.values()))))
