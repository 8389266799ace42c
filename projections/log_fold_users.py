"""What the read models of users must hold, folded from the log by itself: verification's own opinion.

It knows the tables' columns and nothing of the projections' code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from domain import events
from domain.events import Event
from projections.differences import Difference
from projections.digests import Digest

_to_json = msgspec.json.Encoder().encode


PROJECTIONS = ("users", "markers")  # what feeds these read models

# Of each, the key it is compared by, then the columns that are digested, in their order.
ROWS = {
    "users": "SELECT user_id, version, sequence, display_name, avatar_url, attributes, profile_at, "
    "profile_sequence FROM users",
    "devices": "SELECT user_id, device_id, kind, registered_at, revoked_at, sequence FROM devices",
    "blocks": "SELECT user_id, blocked_id, blocked, changed_at, sequence FROM blocks",
    "markers": "SELECT user_id, conversation_id, read_seq, read_at, sequence FROM markers",
    "own_settings": "SELECT user_id, conversation_id, muted_until, pinned, hidden, occurred_at, sequence "
    "FROM own_settings",
}


@dataclass(slots=True)
class _User:
    """What the log says of one user, up to each read model's checkpoint."""

    at: tuple[int, int] = (0, 0)  # version and sequence
    profile: tuple[Any, ...] = (None, None, "{}", None, 0)
    devices: dict[str, tuple[str, datetime, datetime | None, int]] = field(default_factory=dict)
    blocks: dict[str, tuple[bool, datetime, int]] = field(default_factory=dict)
    markers: dict[int, tuple[int, datetime, int]] = field(default_factory=dict)
    settings: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    version: int = 0  # of the log itself, not of a read model


class UsersFold:
    """Folds one partition's log into what its read models must hold. See `verification.LogFold`."""

    def __init__(self, checkpoints: dict[str, int]) -> None:
        self.users: dict[str, _User] = {}
        self.events = 0
        self.faults: list[Difference] = []
        self._checkpoints = checkpoints

    def __len__(self) -> int:
        return len(self.users)

    def add(self, sequence: int, event: Event) -> None:
        """Take the next event."""
        self.events += 1
        user_id, version = event.originator_id, event.originator_version
        user = self.users.setdefault(user_id, _User())
        if version != user.version + 1:
            self.faults.append(Difference("log", f"version {version} follows {user.version}", user_id=user_id))
        user.version = version
        if sequence <= self._checkpoints["users"]:
            user.at = (version, sequence)
            _fold_user(user, sequence, event)
        if sequence <= self._checkpoints["markers"]:
            _fold_markers(user, sequence, event)

    def expected(self, model: str) -> Iterator[tuple[str, Digest]]:
        """Of each user who has rows in a read model: their id and the digest of those rows."""
        for user_id, user in self.users.items():
            digest = Digest()
            for row in _rows(model, user):
                digest.add((user_id, *row))
            if digest.count:
                yield user_id, digest


def _rows(model: str, user: _User) -> Iterator[tuple[Any, ...]]:
    match model:
        case "users" if user.at != (0, 0):
            yield (*user.at, *user.profile)
        case "devices":
            yield from ((device_id, *device) for device_id, device in user.devices.items())
        case "blocks":
            yield from ((blocked_id, *block) for blocked_id, block in user.blocks.items())
        case "markers":
            yield from ((conversation_id, *marker) for conversation_id, marker in user.markers.items())
        case "own_settings":
            yield from ((conversation_id, *settings) for conversation_id, settings in user.settings.items())


def _fold_user(user: _User, sequence: int, event: Event) -> None:
    match event:
        case events.ProfileUpdated():
            attributes = _to_json(event.attributes).decode()
            user.profile = (event.display_name, event.avatar_url, attributes, event.timestamp, sequence)
        case events.DeviceRegistered():
            device = user.devices.get(event.device_id)
            revoked_at = device[2] if device else None
            user.devices[event.device_id] = (event.kind, event.timestamp, revoked_at, sequence)
        case events.DeviceRevoked():
            if device := user.devices.get(event.device_id):
                user.devices[event.device_id] = (*device[:2], event.timestamp, sequence)
        case events.UserBlocked():
            user.blocks[event.user_id] = (True, event.timestamp, sequence)
        case events.UserUnblocked():
            user.blocks[event.user_id] = (False, event.timestamp, sequence)


def _fold_markers(user: _User, sequence: int, event: Event) -> None:
    match event:
        case events.ReadMoved():
            before = user.markers.get(event.conversation_id)
            # The aggregate forgets the markers that moved longest ago, and then takes an older place for a newer one.
            if before is None or before[0] < event.seq:
                user.markers[event.conversation_id] = (event.seq, event.timestamp, sequence)
        case events.SettingsUpdated():
            settings = (event.muted_until, event.pinned, event.hidden, event.timestamp, sequence)
            user.settings[event.conversation_id] = settings
