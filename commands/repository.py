"""Loading aggregates: the newest snapshot, then the log after it; without a snapshot, the whole log of the subject.

Of what the log was trimmed of a snapshot was made before (`commands.covering`), so the archive is read only where that
one was lost.

A load is complete or fails: what was read must end in the very event that the stream's leader names as the
subject's last, so a follower that lags cannot make the writer decide on an old state.
"""

import asyncio
from typing import Any, TypeAlias, cast

import msgspec

from commands.cache import AnyAggregate, Loaded
from commands.ports import Snapshot, SnapshotStore
from domain.conversations import Conversation
from domain.events import Event
from domain.ids import PAIR
from domain.pairs import Pair
from domain.users import User
from streams import codec, subjects
from streams.ports import Delivery, Log, LogUnavailable

READ_TRIES = 5  # a follower that lags has caught up after a few of these
SNAPSHOT_EVERY_MIN = 1_000  # events: replaying them takes about 20 ms
SNAPSHOT_EVERY_SHARE = 20  # and 1/20 of a long history, so snapshots cost the same per message at any length

Snapshotted: TypeAlias = Conversation | Pair | User  # those whose history may grow long

# Of all kinds: what was made of another is of no use to anybody.
SCHEMAS = f"{Conversation.SNAPSHOT_SCHEMA}.{Pair.SNAPSHOT_SCHEMA}.{User.SNAPSHOT_SCHEMA}"

_decode_state = msgspec.msgpack.Decoder()
_encode_state = msgspec.msgpack.Encoder()


class Repository:
    """The aggregates of one partition, as the log has them.

    Args:
        archived: the same log, and what it was trimmed of.
    """

    def __init__(
        self, log: Log, snapshots: SnapshotStore, *, family: str, partition: int, archived: Log | None = None
    ) -> None:
        self._log = log
        self._archived = archived or log
        self._snapshots = snapshots
        self._family = family
        self._partition = partition
        self._stream = subjects.stream(family, partition)

    async def load(self, aggregate_id: str) -> Loaded:
        """An aggregate at its newest version; `aggregate` is `None` when the log has no event of it.

        Raises:
            LogUnavailable: the log cannot be reached, or what it gives has a hole.
        """
        subject = subjects.aggregate(self._family, self._partition, aggregate_id)
        last = await self._log.last(self._stream, subject)
        if last is None:
            return await self._load_trimmed(aggregate_id, subject)
        kind = kind_of(self._family, aggregate_id)
        snapshot = await self._snapshots.load(self._family, aggregate_id) if kind else None
        if kind and snapshot and (aggregate := restored(kind, snapshot)) is not None:
            newest = await self._replay(self._log, aggregate, subject, snapshot.sequence, last)
            if newest is not None:
                return Loaded(newest, snapshot.version)
        return await self._load_whole(subject, last)

    async def _load_trimmed(self, aggregate_id: str, subject: str) -> Loaded:
        """An aggregate of which the log has nothing: it is new, or was trimmed whole."""
        if subjects.stays(subject) or not (trimmed := await self._log.trimmed(self._stream)):
            return Loaded(None)
        known = await self._snapshots.of_trimmed(self._stream, trimmed, self._family, aggregate_id)
        if known.is_certain:
            if known.snapshot is None:
                return Loaded(None)
            kind = kind_of(self._family, aggregate_id)
            if kind and (aggregate := restored(kind, known.snapshot)) is not None:
                return Loaded(aggregate, known.snapshot.version)
        last = await self._archived.last(self._stream, subject)
        return Loaded(None) if last is None else await self._load_whole(subject, last)

    async def _load_whole(self, subject: str, last: Delivery) -> Loaded:
        for _ in range(READ_TRIES):
            for log in (self._log, self._archived):  # where the log has the first event, no archive is needed
                aggregate = await self._replay(log, None, subject, 0, last)
                if aggregate is not None:
                    return Loaded(aggregate)
            await asyncio.sleep(0.02)
        raise LogUnavailable(f"{subject} could not be read up to its last event, sequence {last.sequence}")

    async def _replay(
        self, log: Log, aggregate: AnyAggregate | None, subject: str, after_sequence: int, last: Delivery
    ) -> AnyAggregate | None:
        """Fold what follows; `None` if that does not lead, version by version, to `last`."""
        version = aggregate.version if aggregate is not None else 0
        async for delivery in log.read(
            self._stream, subject=subject, after_sequence=after_sequence, up_to_sequence=last.sequence
        ):
            event = codec.decode(delivery)
            if event.originator_version != version + 1:
                return None
            aggregate = folded(aggregate, event)
            version += 1
        return aggregate if version == codec.event_version(last.headers) else None

    def wants_snapshot(self, loaded: Loaded) -> bool:
        """Whether enough happened since the last snapshot for another to be worth its bytes."""
        if not isinstance(loaded.aggregate, Snapshotted):
            return False
        version = loaded.aggregate.version
        return version - loaded.snapshot_version >= max(SNAPSHOT_EVERY_MIN, version // SNAPSHOT_EVERY_SHARE)

    async def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; see `SnapshotStore.save`."""
        await self._snapshots.save(snapshot)


def kind_of(family: str, aggregate_id: str) -> type[Snapshotted] | None:
    """Of which kind the snapshots of an aggregate are; `None` when it has none."""
    if family == subjects.USER:
        return User
    if aggregate_id.isdecimal():
        return Conversation
    return Pair if aggregate_id.startswith(PAIR) else None


def snapshot_of(family: str, aggregate: Snapshotted, sequence: int) -> Snapshot:
    """The snapshot of a state that is in the log; `sequence` is its last event's position."""
    return Snapshot(
        family=family,
        aggregate_id=aggregate.id,
        version=aggregate.version,
        sequence=sequence,
        schema=aggregate.SNAPSHOT_SCHEMA,
        state=_encode_state.encode(aggregate.state()),
    )


def restored(kind: type[Snapshotted], snapshot: Snapshot) -> Snapshotted | None:
    """The aggregate a snapshot is of; `None` when it is of another schema."""
    if snapshot.schema != kind.SNAPSHOT_SCHEMA:
        return None
    aggregate = kind.restore(_decode_state.decode(snapshot.state))
    return aggregate if aggregate.id == snapshot.aggregate_id else None


def folded(aggregate: AnyAggregate | None, event: Event) -> AnyAggregate:
    """The state after one more event."""
    return cast(AnyAggregate, event.mutate(cast(Any, aggregate)))
