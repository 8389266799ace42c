"""Read models filled event by event, one transaction each, as a projection worker would, without a log behind them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from psycopg_pool import AsyncConnectionPool

from domain import events
from domain.events import Event
from domain.ids import compose, partition_of, slot_of, user_slot
from projections.heads import HeadsProjection
from projections.messages import MessagesProjection
from projections.pages import Positions
from projections.projection import Connection, LoggedEvent
from streams import subjects
from streams.public import PublicEvent, to_public

START = datetime(2026, 1, 30, 23, 50, tzinfo=UTC)  # ten minutes before a month begins

OnCommit = Callable[[str, Sequence[LoggedEvent], int], None]


@dataclass
class Place:
    """A conversation as its events have left it."""

    kind: str
    version: int = 0
    last_seq: int = 0
    members: set[str] = field(default_factory=set)
    events: list[tuple[int, PublicEvent]] = field(default_factory=list)  # with their sequences


class Models:
    """Writes the read models of one deployment. Ids, times and sequences are its own.

    Args:
        on_commit: as of `ProjectionWorker`.
        step: between the times of two events; none makes them equal.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        *,
        partitions: int = 1,
        on_commit: OnCommit | None = None,
        step: timedelta = timedelta(seconds=1),
    ) -> None:
        self.now = START
        self.on_commit = on_commit
        self.places: dict[int, Place] = {}
        self._pool = pool
        self._partitions = partitions
        self._step = step
        self._ids = 0
        self._sequences: dict[str, int] = {}
        self._user_versions: dict[str, int] = {}
        self._heads, self._messages = HeadsProjection(), MessagesProjection()

    @property
    def positions(self) -> Positions:
        of = [
            tuple(self._sequences.get(subjects.stream(family, p), 0) for p in range(self._partitions))
            for family in subjects.FAMILIES
        ]
        return Positions(*of)

    async def open(self) -> "Models":
        """Every checkpoint at 0, as when the workers have started."""
        async with self._pool.connection() as connection:
            for name in ("conversations", "heads", "messages", "users", "markers"):
                for partition in range(self._partitions):
                    await connection.execute("INSERT INTO checkpoints VALUES (%s, %s, 0)", (name, partition))
        return self

    # -- what may happen ------------------------------------------------------------------------------------

    async def create(self, *members: str, kind: str = "group", name: str | None = None, slot: int = 0) -> int:
        self._ids += 1
        id_ = compose(1_760_000_000_000, slot, self._ids % 4096) + (self._ids // 4096 << 22)
        self.places[id_] = Place(kind, members=set(members))
        roles = dict.fromkeys(members, "member")
        event = self._event(
            events.ConversationCreated,
            id_,
            members[0],
            originator_topic="conversation",
            kind=kind,
            name=name,
            members=roles,
            settings={},
        )
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "INSERT INTO conversations VALUES (%s, %s, %s, '{}', %s, %s, %s, %s, 1)",
                (id_, kind, name, members[0], event.timestamp, event.timestamp, len(members)),
            )
            for user in members:
                await connection.execute(
                    "INSERT INTO members VALUES (%s, %s, 'member', 1, %s, 1, %s, 0)",
                    (id_, user, event.timestamp, sequence),
                )
        return id_

    async def post(self, id_: int, user: str, text: str = "hello") -> int:
        place = self.places[id_]
        place.last_seq += 1
        self._ids += 1
        event = self._event(
            events.MessagePosted,
            id_,
            user,
            seq=place.last_seq,
            message_id=self._ids,
            client_msg_id=f"c{self._ids}",
            body={"type": "text", "text": text},
            reply_to=None,
            mentions=[],
        )
        async with self._commit(event) as (connection, _):
            await connection.execute(
                "UPDATE members SET posted_seq = %s WHERE conversation_id = %s AND user_id = %s",
                (place.last_seq, id_, user),
            )
        return place.last_seq

    async def add(self, id_: int, user: str) -> None:
        place = self.places[id_]
        place.members.add(user)
        event = self._event(events.MemberAdded, id_, "root", user_id=user, role="member", joined_seq=place.last_seq + 1)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "INSERT INTO members VALUES (%s, %s, 'member', %s, %s, %s, %s, 0)",
                (id_, user, place.last_seq + 1, event.timestamp, place.version, sequence),
            )
            await self._counted(connection, event, 1)

    async def remove(self, id_: int, user: str) -> None:
        place = self.places[id_]
        place.members.discard(user)
        event = self._event(events.MemberRemoved, id_, "root", user_id=user)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                """WITH ended AS (DELETE FROM members WHERE conversation_id = %s AND user_id = %s
                                  RETURNING user_id, conversation_id, joined_version)
                   INSERT INTO departures SELECT *, %s, %s FROM ended ON CONFLICT (user_id, conversation_id) DO UPDATE
                   SET joined_version = excluded.joined_version, left_version = excluded.left_version,
                       left_sequence = excluded.left_sequence""",
                (id_, user, place.version, sequence),
            )
            await self._counted(connection, event, -1)

    async def rename(self, id_: int, name: str) -> None:
        event = self._event(events.ConversationUpdated, id_, "root", name=name, settings={})
        async with self._commit(event) as (connection, _):
            await connection.execute("UPDATE conversations SET name = %s WHERE conversation_id = %s", (name, id_))
            await self._counted(connection, event, 0)

    async def read(self, user: str, id_: int, seq: int) -> None:
        event = self._own(events.ReadMoved, user, conversation_id=id_, seq=seq)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                """INSERT INTO markers VALUES (%s, %s, %s, %s, %s) ON CONFLICT (conversation_id, user_id) DO UPDATE SET
                   read_seq = greatest(markers.read_seq, excluded.read_seq), read_at = excluded.read_at,
                   sequence = excluded.sequence""",
                (id_, user, seq, event.timestamp, sequence),
            )

    async def set_own(
        self, user: str, id_: int, *, muted_until: datetime | None = None, pinned: bool = False, hidden: bool = False
    ) -> None:
        event = self._own(
            events.SettingsUpdated, user, conversation_id=id_, muted_until=muted_until, pinned=pinned, hidden=hidden
        )
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                """INSERT INTO own_settings VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (user_id, conversation_id)
                   DO UPDATE SET muted_until = excluded.muted_until, pinned = excluded.pinned,
                   hidden = excluded.hidden, occurred_at = excluded.occurred_at, sequence = excluded.sequence""",
                (user, id_, muted_until, pinned, hidden, event.timestamp, sequence),
            )

    async def set_profile(self, user: str, display_name: str | None, **attributes: str) -> None:
        event = self._own(
            events.ProfileUpdated, user, display_name=display_name, avatar_url=None, attributes=attributes
        )
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "UPDATE users SET display_name = %s, attributes = %s, profile_at = %s, profile_sequence = %s "
                "WHERE user_id = %s",
                (display_name, msgspec.json.encode(attributes).decode(), event.timestamp, sequence, user),
            )

    async def register(self, user: str, device: str, kind: str = "web") -> None:
        event = self._own(events.DeviceRegistered, user, device_id=device, kind=kind)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "INSERT INTO devices VALUES (%s, %s, %s, %s, NULL, %s)", (user, device, kind, event.timestamp, sequence)
            )

    async def revoke(self, user: str, device: str) -> None:
        event = self._own(events.DeviceRevoked, user, device_id=device)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "UPDATE devices SET revoked_at = %s, sequence = %s WHERE user_id = %s AND device_id = %s",
                (event.timestamp, sequence, user, device),
            )

    async def block(self, user: str, other: str) -> None:
        event = self._own(events.UserBlocked, user, user_id=other)
        async with self._commit(event) as (connection, sequence):
            await connection.execute(
                "INSERT INTO blocks VALUES (%s, %s, true, %s, %s)", (user, other, event.timestamp, sequence)
            )

    # -- how it is written ----------------------------------------------------------------------------------

    def _event(self, type_: type[Event], id_: int, actor: str, **fields: Any) -> Any:
        place = self.places[id_]
        place.version += 1
        return type_(
            originator_id=str(id_), originator_version=place.version, timestamp=self._tick(), actor_id=actor, **fields
        )

    def _own(self, type_: type[Event], user: str, **fields: Any) -> Any:
        version = self._user_versions[user] = self._user_versions.get(user, 1) + 1
        return type_(originator_id=user, originator_version=version, timestamp=self._tick(), actor_id=user, **fields)

    def _tick(self) -> datetime:
        self.now += self._step
        return self.now

    @asynccontextmanager
    async def _commit(self, event: Event) -> AsyncIterator[tuple[Connection, int]]:
        public = to_public(event)
        family = subjects.USER if public is None else subjects.CONV
        slot = user_slot(event.originator_id) if public is None else slot_of(int(event.originator_id))
        partition = partition_of(slot, self._partitions)
        stream = subjects.stream(family, partition)
        sequence = self._sequences[stream] = self._sequences.get(stream, 0) + 1
        batch = [LoggedEvent(sequence, event)]
        async with self._pool.connection() as connection, connection.transaction():
            if public is None:
                names = ["users", "markers"]
                await connection.execute(
                    """INSERT INTO users (user_id, version, sequence, attributes, profile_sequence)
                       VALUES (%s, %s, %s, '{}', 0) ON CONFLICT (user_id) DO UPDATE SET
                       version = excluded.version, sequence = excluded.sequence""",
                    (event.originator_id, event.originator_version, sequence),
                )
            else:
                names = ["conversations", "heads", "messages"]
                await self._heads.apply(connection, batch)
                await self._messages.apply(connection, batch)
                self.places[int(event.originator_id)].events.append((sequence, public))
            yield connection, sequence
            await connection.execute(
                "UPDATE checkpoints SET sequence = %s WHERE partition = %s AND projection = ANY(%s)",
                (sequence, partition, names),
            )
        if self.on_commit is not None:
            self.on_commit(stream, batch, sequence)

    async def _counted(self, connection: Connection, event: Event, change: int) -> None:
        await connection.execute(
            "UPDATE conversations SET member_count = member_count + %s, version = %s, updated_at = %s "
            "WHERE conversation_id = %s",
            (change, event.originator_version, event.timestamp, int(event.originator_id)),
        )
