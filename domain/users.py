"""The `User` aggregate: a user's profile, devices, read markers, own settings of conversations, and blocks.

A user needs no registration; the aggregate begins with the first fact kept of them. Whether they are a member of a
conversation, and how far it goes, is not known here: who asks has looked (`projections`).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from eventsourcing.utils import register_topic
from msgspec import UNSET, UnsetType

from domain import events
from domain.aggregates import Aggregate
from domain.devices import Device, check_device
from domain.errors import Invalid, NotFound
from domain.ids import check_user_id
from domain.own_settings import OwnSettings
from domain.profiles import Profile

MARKER_INTERVAL = timedelta(seconds=1)  # at most one stored event in it, of each marker
MARKERS_MAX = 20_000  # about 5 MB; of a marker forgotten here the read model keeps the greatest
DEVICES_MAX = 100  # not revoked
REVOKED_MAX = 200  # the newest; an older one is as if it had never been, and its tokens have long expired
BLOCKS_MAX = 1_000
OWN_SETTINGS_MAX = 10_000  # conversations with settings other than the default


class TooSoon(Exception):
    """A read marker that was moved less than a second ago.

    Not a refusal: decide again at `ready_at`, of several the one with the greatest `seq` first.

    Attributes:
        ready_at: when it may be moved again.
        conversation_id, seq: what was asked.
    """

    def __init__(self, ready_at: datetime, conversation_id: int, seq: int) -> None:
        super().__init__(conversation_id, seq)
        self.ready_at = ready_at
        self.conversation_id = conversation_id
        self.seq = seq


class Marker(NamedTuple):
    """How far a user has read a conversation, and when that was said."""

    seq: int
    moved_at: datetime


class User(Aggregate):
    """Its id is the user's."""

    TOPIC = "user"

    def __init__(self) -> None:
        self.profile = Profile()
        self.devices: dict[str, Device] = {}  # what changed longest ago first
        self.markers: dict[int, Marker] = {}  # what was moved longest ago first
        self.own_settings: dict[int, OwnSettings] = {}  # those that are not the default
        self.blocked: dict[str, None] = {}  # a set that keeps its order

    # -- decisions ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, user_id: str, *, now: datetime) -> Self:
        """A user of whom nothing is kept yet."""
        return cls._create(events.UserCreated, id=user_id, timestamp=now, actor_id=user_id)

    def update_profile(
        self,
        *,
        display_name: str | UnsetType | None = UNSET,
        avatar_url: str | UnsetType | None = UNSET,
        attributes: dict[str, str] | UnsetType = UNSET,
        now: datetime,
    ) -> Profile:
        """Change what is given, and return the profile as it is then. No event when nothing changes.

        Raises:
            Invalid: see `Profile.changed`.
        """
        profile = self.profile.changed(display_name=display_name, avatar_url=avatar_url, attributes=attributes)
        if profile != self.profile:
            self._trigger(
                events.ProfileUpdated,
                self.id,
                now,
                display_name=profile.display_name,
                avatar_url=profile.avatar_url,
                attributes=profile.attributes,
            )
        return self.profile

    def register_device(self, *, device_id: str, kind: str, token_issued_at: datetime | None, now: datetime) -> Device:
        """A device connects. No event when it is registered; what kind it is then stays what it was.

        Raises:
            Revoked: it was revoked since the token was issued.
            Invalid: a bad id or kind, or too many devices.
        """
        check_device(device_id, kind)
        device = self.devices.get(device_id)
        if device is not None:
            device.check_token(token_issued_at)
            if not device.revoked:
                return device
        if sum(not known.revoked for known in self.devices.values()) >= DEVICES_MAX:
            raise Invalid(f"at most {DEVICES_MAX} devices; revoke one first", field="device_id")
        self._trigger(events.DeviceRegistered, self.id, now, device_id=device_id, kind=kind)
        return self.devices[device_id]

    def revoke_device(self, *, device_id: str, now: datetime) -> Device:
        """Tokens issued up to now open no session for the device any more. No event when it is revoked.

        Raises:
            NotFound: the user has no such device.
        """
        device = self.devices.get(device_id)
        if device is None:
            raise NotFound("you have no such device")
        if not device.revoked:
            self._trigger(events.DeviceRevoked, self.id, now, device_id=device_id)
        return self.devices[device_id]

    def move_read(self, *, conversation_id: int, seq: int, now: datetime) -> int:
        """Move the read marker forward, and return where it stands then. No event when it stands there or further.

        Raises:
            TooSoon: it was moved less than a second ago.
        """
        marker = self.markers.get(conversation_id)
        standing = marker.seq if marker else 0
        if seq <= standing:
            return standing
        if marker and now < (ready_at := marker.moved_at + MARKER_INTERVAL):
            raise TooSoon(ready_at, conversation_id, seq)
        self._trigger(events.ReadMoved, self.id, now, conversation_id=conversation_id, seq=seq)
        return seq

    def change_own_settings(
        self,
        *,
        conversation_id: int,
        muted_until: datetime | UnsetType | None = UNSET,
        pinned: bool | UnsetType = UNSET,
        hidden: bool | UnsetType = UNSET,
        now: datetime,
    ) -> OwnSettings:
        """Change what is given, and return the settings as they are then. No event when nothing changes.

        Raises:
            Invalid: a bad time, or settings of too many conversations.
        """
        before = self.own_settings.get(conversation_id, OwnSettings())
        after = before.changed(muted_until=muted_until, pinned=pinned, hidden=hidden)
        if after == before:
            return after
        if conversation_id not in self.own_settings and len(self.own_settings) >= OWN_SETTINGS_MAX:
            raise Invalid(
                f"at most {OWN_SETTINGS_MAX:,} conversations with settings of your own", field="conversation_id"
            )
        self._trigger(
            events.SettingsUpdated,
            self.id,
            now,
            conversation_id=conversation_id,
            muted_until=after.muted_until,
            pinned=after.pinned,
            hidden=after.hidden,
        )
        return after

    def block(self, *, user_id: str, now: datetime) -> None:
        """Block another user. No event when it is so.

        Raises:
            Invalid: oneself, a bad user id, or too many.
        """
        if check_user_id(user_id) == self.id:
            raise Invalid("you cannot block yourself", field="user_id")
        if user_id in self.blocked:
            return
        if len(self.blocked) >= BLOCKS_MAX:
            raise Invalid(f"at most {BLOCKS_MAX:,} blocked users", field="user_id")
        self._trigger(events.UserBlocked, self.id, now, user_id=user_id)

    def unblock(self, *, user_id: str, now: datetime) -> None:
        """Take a block back. No event when there is none.

        Raises:
            Invalid: a bad user id.
        """
        if check_user_id(user_id) in self.blocked:
            self._trigger(events.UserUnblocked, self.id, now, user_id=user_id)

    # -- folding --------------------------------------------------------------------------------------------

    def fold(self, event: events.Event) -> None:
        """Take an event into the state. Total: an event that was once decided always folds."""
        match event:
            case events.ReadMoved():
                self._fold_marker(event)
            case events.SettingsUpdated():
                self._fold_settings(event)
            case events.ProfileUpdated():
                self.profile = Profile(event.display_name, event.avatar_url, event.attributes)
            case events.DeviceRegistered():
                before = self.devices.pop(event.device_id, None)
                revoked_at = before.revoked_at if before else None
                self.devices[event.device_id] = Device(event.kind, event.timestamp, revoked_at)
            case events.DeviceRevoked():
                self._fold_revoked(event)
            case events.UserBlocked():
                self.blocked[event.user_id] = None
            case events.UserUnblocked():
                self.blocked.pop(event.user_id, None)
            case _:
                pass

    def _fold_marker(self, event: events.ReadMoved) -> None:
        self.markers.pop(event.conversation_id, None)
        self.markers[event.conversation_id] = Marker(event.seq, event.timestamp)
        if len(self.markers) > MARKERS_MAX:
            del self.markers[next(iter(self.markers))]

    def _fold_settings(self, event: events.SettingsUpdated) -> None:
        own_settings = OwnSettings(event.muted_until, event.pinned, event.hidden)
        if own_settings == OwnSettings():
            self.own_settings.pop(event.conversation_id, None)
        else:
            self.own_settings[event.conversation_id] = own_settings

    def _fold_revoked(self, event: events.DeviceRevoked) -> None:
        device = self.devices.pop(event.device_id, None)
        if device is None:
            return
        self.devices[event.device_id] = device.revoked_since(event.timestamp)
        revoked = [device_id for device_id, device in self.devices.items() if device.revoked]
        if len(revoked) > REVOKED_MAX:
            del self.devices[revoked[0]]

    # -- snapshots ------------------------------------------------------------------------------------------

    SNAPSHOT_SCHEMA = 1  # a snapshot of another schema is ignored, and the log replayed

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, in MessagePack's types."""
        profile = self.profile
        return {
            "id": self.id,
            "version": self.version,
            "created_on": self.created_on,
            "modified_on": self.modified_on,
            "profile": (profile.display_name, profile.avatar_url, profile.attributes),
            "devices": [
                (device_id, device.kind, device.registered_at, device.revoked_at, device.revoked)
                for device_id, device in self.devices.items()
            ],
            "markers": [(conversation_id, *marker) for conversation_id, marker in self.markers.items()],
            "own_settings": [
                (conversation_id, own.muted_until, own.pinned, own.hidden)
                for conversation_id, own in self.own_settings.items()
            ],
            "blocked": list(self.blocked),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The aggregate that `state` was taken of."""
        self = cls.__new__(cls)
        self.__base_init__(state["id"], state["version"], state["created_on"].astimezone(UTC))
        self.__init__()  # type: ignore[misc]
        self.modified_on = state["modified_on"].astimezone(UTC)
        self.profile = Profile(*state["profile"])
        self.devices = {
            device_id: Device(kind, registered_at.astimezone(UTC), _utc(revoked_at), revoked)
            for device_id, kind, registered_at, revoked_at, revoked in state["devices"]
        }
        self.markers = {
            conversation_id: Marker(seq, moved_at.astimezone(UTC))
            for conversation_id, seq, moved_at in state["markers"]
        }
        self.own_settings = {
            conversation_id: OwnSettings(_utc(muted_until), pinned, hidden)
            for conversation_id, muted_until, pinned, hidden in state["own_settings"]
        }
        self.blocked = dict.fromkeys(state["blocked"])
        return self

    @property
    def size_bytes(self) -> int:
        """About how much memory this aggregate holds."""
        profile_bytes = sum(len(key) + 4 * len(value) for key, value in self.profile.attributes.items())
        return (
            2_000
            + profile_bytes
            + 250 * (len(self.devices) + len(self.markers) + len(self.own_settings))
            + 120 * len(self.blocked)
        )


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)


register_topic(User.TOPIC, User)
