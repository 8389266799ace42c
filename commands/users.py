"""Commands of users about themselves: profile, devices, read markers, own settings, blocks.

A block is two facts in two partitions: `BlockUser` is the user's own (whom they see as blocked), `BlockPair` is what
the writer of the direct conversation refuses by. Both are idempotent. Dispatch `BlockUser` first, which may refuse;
if the second does not come through, the same call again mends it.
"""

from datetime import UTC, datetime, timedelta
from typing import ClassVar

from msgspec import UNSET, UnsetType

from commands.command import Command, Deciding, Result
from domain.devices import Device
from domain.errors import Invalid
from domain.ids import ReservationKey, check_user_id, pair_key, user_slot
from domain.pairs import Pair
from streams import subjects
from streams.public import rfc3339

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ProfileResult(Result, frozen=True, kw_only=True):
    """The profile as it is now."""

    display_name: str | None
    avatar_url: str | None
    attributes: dict[str, str]


class DeviceResult(Result, frozen=True, kw_only=True):
    """`revoked_at` is set while the device is revoked."""

    device_id: str
    kind: str
    registered_at: str
    revoked_at: str | None


class MarkerResult(Result, frozen=True, kw_only=True):
    """Where the read marker stands, durably: at what was asked or further."""

    conversation_id: str
    read_seq: int


class OwnSettingsResult(Result, frozen=True, kw_only=True):
    """The user's own settings of the conversation as they are now."""

    muted_until: str | None
    pinned: bool
    hidden: bool


class BlockResult(Result, frozen=True, kw_only=True):
    """Whether the actor blocks the user now."""

    user_id: str
    blocked: bool


class OfUser(Command, frozen=True, kw_only=True):
    """What a user changes about themselves: decided in the user's own slot, in the order it came."""

    family: ClassVar[str] = subjects.USER

    @property
    def slot(self) -> int:
        return user_slot(self.actor_id)

    @property
    def lane(self) -> str:
        return self.actor_id


class UpdateProfile(OfUser, frozen=True, kw_only=True):
    """What is not given stays; `None` clears; `attributes` replace all there were."""

    display_name: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    attributes: dict[str, str] | UnsetType = UNSET


class RegisterDevice(OfUser, frozen=True, kw_only=True):
    """A device connects. `token_issued_at_ms`: Unix milliseconds, of the token it connects with, if it says."""

    device_id: str
    kind: str
    token_issued_at_ms: int | None = None


class RevokeDevice(OfUser, frozen=True, kw_only=True):
    """Tokens issued up to now open no session for the device any more."""

    device_id: str


class MoveRead(OfUser, frozen=True, kw_only=True):
    """The actor has read a conversation up to `seq`. Whoever makes this has checked that they may, and that there is
    such a message."""

    conversation_id: int
    seq: int

    @property
    def repeatable(self) -> bool:
        return True


class ChangeOwnSettings(OfUser, frozen=True, kw_only=True):
    """What is not given stays. Whoever makes this has checked that the actor is a member."""

    conversation_id: int
    muted_until: datetime | UnsetType | None = UNSET
    pinned: bool | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET


class BlockUser(OfUser, frozen=True, kw_only=True):
    """See the head of this file: `BlockPair` belongs to it."""

    user_id: str


class UnblockUser(OfUser, frozen=True, kw_only=True):
    """See the head of this file: `BlockPair` belongs to it."""

    user_id: str


class BlockPair(Command, frozen=True, kw_only=True):
    """From now on neither of the two may write to the other directly; or, `blocks` false, the actor minds no more."""

    other_id: str
    blocks: bool

    @property
    def key(self) -> ReservationKey:
        """The pair.

        Raises:
            Invalid: the other is the actor, or no user id.
        """
        if check_user_id(self.other_id) == self.actor_id:
            raise Invalid("you cannot block yourself", field="user_id")
        return pair_key(self.actor_id, self.other_id)

    @property
    def slot(self) -> int:
        return self.key.slot

    @property
    def lane(self) -> str:
        return self.key.value


def update_profile(command: UpdateProfile, deciding: Deciding) -> ProfileResult:
    profile = deciding.user(command.actor_id).update_profile(
        display_name=command.display_name,
        avatar_url=command.avatar_url,
        attributes=command.attributes,
        now=deciding.now,
    )
    return ProfileResult(
        display_name=profile.display_name, avatar_url=profile.avatar_url, attributes=profile.attributes
    )


def register_device(command: RegisterDevice, deciding: Deciding) -> DeviceResult:
    device = deciding.user(command.actor_id).register_device(
        device_id=command.device_id,
        kind=command.kind,
        token_issued_at=_moment(command.token_issued_at_ms),
        now=deciding.now,
    )
    return _device_result(command.device_id, device)


def revoke_device(command: RevokeDevice, deciding: Deciding) -> DeviceResult:
    device = deciding.user(command.actor_id).revoke_device(device_id=command.device_id, now=deciding.now)
    return _device_result(command.device_id, device)


def move_read(command: MoveRead, deciding: Deciding) -> MarkerResult:
    read_seq = deciding.user(command.actor_id).move_read(
        conversation_id=command.conversation_id, seq=command.seq, now=deciding.now
    )
    return MarkerResult(conversation_id=str(command.conversation_id), read_seq=read_seq)


def change_own_settings(command: ChangeOwnSettings, deciding: Deciding) -> OwnSettingsResult:
    own_settings = deciding.user(command.actor_id).change_own_settings(
        conversation_id=command.conversation_id,
        muted_until=command.muted_until,
        pinned=command.pinned,
        hidden=command.hidden,
        now=deciding.now,
    )
    muted_until = own_settings.muted_until
    return OwnSettingsResult(
        muted_until=None if muted_until is None else rfc3339(muted_until),
        pinned=own_settings.pinned,
        hidden=own_settings.hidden,
    )


def block_user(command: BlockUser, deciding: Deciding) -> BlockResult:
    deciding.user(command.actor_id).block(user_id=command.user_id, now=deciding.now)
    return BlockResult(user_id=command.user_id, blocked=True)


def unblock_user(command: UnblockUser, deciding: Deciding) -> BlockResult:
    deciding.user(command.actor_id).unblock(user_id=command.user_id, now=deciding.now)
    return BlockResult(user_id=command.user_id, blocked=False)


def block_pair(command: BlockPair, deciding: Deciding) -> BlockResult:
    key = command.key.value
    pair = deciding.pair(key)
    if pair is None and command.blocks:
        pair = Pair.create(key, actor_id=command.actor_id, now=deciding.now)
        deciding.add(pair)
    if pair is not None and command.blocks:
        pair.block(actor_id=command.actor_id, now=deciding.now)
    elif pair is not None:
        pair.unblock(actor_id=command.actor_id, now=deciding.now)
    return BlockResult(user_id=command.other_id, blocked=command.blocks)


def _moment(ms: int | None) -> datetime | None:
    try:
        return None if ms is None else _UNIX_EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return None  # a token of no time that there is says nothing


def _device_result(device_id: str, device: Device) -> DeviceResult:
    return DeviceResult(
        device_id=device_id,
        kind=device.kind,
        registered_at=rfc3339(device.registered_at),
        revoked_at=rfc3339(device.revoked_at) if device.revoked and device.revoked_at else None,
    )
