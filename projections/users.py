"""The `users`, `devices` and `blocks` read models: who a user is, what they connect with, whom they do not hear."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from domain import events
from domain.events import Event
from projections.projection import Connection, LoggedEvent
from projections.staging import arrays

_to_json = msgspec.json.Encoder().encode

# A batch without a profile of a user (`profile_sequence` 0) leaves the one that is there.
_MERGE_USERS = """
    INSERT INTO users (user_id, version, sequence, display_name, avatar_url, attributes, profile_at, profile_sequence)
    SELECT * FROM unnest(%b::text[], %b::int8[], %b::int8[], %b::text[], %b::text[], %b::text[], %b::timestamptz[],
        %b::int8[])
    ON CONFLICT (user_id) DO UPDATE SET
        version = excluded.version, sequence = excluded.sequence,
        display_name = CASE WHEN excluded.profile_sequence > 0 THEN excluded.display_name ELSE users.display_name END,
        avatar_url = CASE WHEN excluded.profile_sequence > 0 THEN excluded.avatar_url ELSE users.avatar_url END,
        attributes = CASE WHEN excluded.profile_sequence > 0 THEN excluded.attributes ELSE users.attributes END,
        profile_at = coalesce(excluded.profile_at, users.profile_at),
        profile_sequence = greatest(users.profile_sequence, excluded.profile_sequence)
    WHERE users.sequence < excluded.sequence"""

_SEQUENCES = "SELECT user_id, sequence FROM users WHERE user_id = ANY(%s)"

_REGISTER = """
    INSERT INTO devices (user_id, device_id, kind, registered_at, revoked_at, sequence)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::int8[])
    ON CONFLICT (user_id, device_id) DO UPDATE SET kind = excluded.kind, registered_at = excluded.registered_at,
        revoked_at = greatest(devices.revoked_at, excluded.revoked_at), sequence = excluded.sequence"""

_REVOKE = """
    UPDATE devices SET revoked_at = r.revoked_at, sequence = r.sequence
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::int8[]) AS r (user_id, device_id, revoked_at, sequence)
    WHERE devices.user_id = r.user_id AND devices.device_id = r.device_id"""

_BLOCK = """
    INSERT INTO blocks (user_id, blocked_id, blocked, changed_at, sequence)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::bool[], %b::timestamptz[], %b::int8[])
    ON CONFLICT (user_id, blocked_id) DO UPDATE
    SET blocked = excluded.blocked, changed_at = excluded.changed_at, sequence = excluded.sequence"""

_KNOWN = frozenset((*events.OF_USERS, events.UserCreated))
_RARE = frozenset((events.DeviceRegistered, events.DeviceRevoked, events.UserBlocked, events.UserUnblocked))


@dataclass(slots=True)
class _User:
    """What a batch says of one user: their newest event, and their newest profile if it has one."""

    version: int
    sequence: int
    profile: events.ProfileUpdated | None = None
    profile_sequence: int = 0


@dataclass(slots=True)
class _Device:
    """A device as a batch leaves it; `kind` and `registered_at` are set if it was registered in it."""

    kind: str | None
    registered_at: datetime | None
    revoked_at: datetime | None
    sequence: int


class _Block(NamedTuple):
    """Whether a user blocks another, as a batch leaves it."""

    blocked: bool
    changed_at: datetime
    sequence: int


class UsersProjection:
    """Keeps one row a user, whatever happens to them, and their devices and blocks.

    Most of a user's events are moves of read markers: of those only the user's newest version and sequence are kept,
    by one statement a batch.
    """

    name = "users"
    version = 1

    async def apply(self, connection: Connection, batch: Sequence[LoggedEvent]) -> None:
        """See `Projection.apply`. Repeats are told by the sequence of the user's row."""
        users: dict[str, _User] = {}
        rare: list[LoggedEvent] = []
        for sequence, event in batch:
            if type(event) not in _KNOWN:
                continue
            user = users.get(event.originator_id)
            if user is None:
                users[event.originator_id] = user = _User(0, 0)
            user.version, user.sequence = event.originator_version, sequence
            if isinstance(event, events.ProfileUpdated):
                user.profile, user.profile_sequence = event, sequence
            elif type(event) in _RARE:
                rare.append(LoggedEvent(sequence, event))
        if rare:
            await _merge_rare(connection, rare)  # before the users' rows, whose sequences tell what is a repeat
        if users:
            rows = [_row(user_id, user) for user_id, user in users.items()]
            await connection.execute(_MERGE_USERS, arrays(rows), prepare=True)


def _row(user_id: str, user: _User) -> tuple[object, ...]:
    profile = user.profile
    if profile is None:
        return (user_id, user.version, user.sequence, None, None, "{}", None, 0)
    attributes = _to_json(profile.attributes).decode()
    names = (profile.display_name, profile.avatar_url, attributes)
    return (user_id, user.version, user.sequence, *names, profile.timestamp, user.profile_sequence)


async def _merge_rare(connection: Connection, rare: Sequence[LoggedEvent]) -> None:
    cursor = await connection.execute(_SEQUENCES, (list({event.originator_id for _, event in rare}),))
    applied: dict[str, int] = dict(await cursor.fetchall())
    devices: dict[tuple[str, str], _Device] = {}
    blocks: dict[tuple[str, str], _Block] = {}
    revoked: list[tuple[object, ...]] = []  # before they were registered anew in this batch, and those at its end
    for sequence, event in rare:
        if sequence <= applied.get(event.originator_id, 0):
            continue
        if isinstance(event, events.DeviceRegistered):
            device = devices.get((event.originator_id, event.device_id))
            if device is not None and device.kind is None:
                del devices[event.originator_id, event.device_id]
                revoked.append((event.originator_id, event.device_id, device.revoked_at, device.sequence))
        _fold(sequence, event, devices, blocks)
    registered = [(*key, *astuple(device)) for key, device in devices.items() if device.kind is not None]
    revoked += [(*key, device.revoked_at, device.sequence) for key, device in devices.items() if device.kind is None]
    blocked = [(*key, *block) for key, block in blocks.items()]
    for statement, rows in ((_REVOKE, revoked), (_REGISTER, registered), (_BLOCK, blocked)):
        if rows:
            # Never prepared: a plan made while the table is small reads all of it, and would be kept as it grows.
            await connection.execute(statement, arrays(rows), prepare=False)


def _fold(
    sequence: int,
    event: Event,
    devices: dict[tuple[str, str], _Device],
    blocks: dict[tuple[str, str], _Block],
) -> None:
    match event:
        case events.DeviceRegistered():
            key = (event.originator_id, event.device_id)
            revoked_at = devices[key].revoked_at if key in devices else None
            devices[key] = _Device(event.kind, event.timestamp, revoked_at, sequence)
        case events.DeviceRevoked():
            key = (event.originator_id, event.device_id)
            device = devices.setdefault(key, _Device(None, None, None, sequence))
            device.revoked_at, device.sequence = event.timestamp, sequence
        case events.UserBlocked() | events.UserUnblocked():
            blocked = isinstance(event, events.UserBlocked)
            blocks[event.originator_id, event.user_id] = _Block(blocked, event.timestamp, sequence)
