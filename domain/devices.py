"""Devices of a user: what they may be called, and how one is revoked."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias, get_args

from domain.errors import Invalid, Revoked

DeviceKind: TypeAlias = Literal["desktop", "mobile", "tablet", "web", "bot", "other"]
DEVICE_KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)
DEVICE_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class Device:
    """One installation of a client.

    Attributes:
        revoked_at: when it was last revoked. Stays when it is registered anew: a token from before is still not good.
        revoked: whether it is revoked now.
    """

    kind: str
    registered_at: datetime
    revoked_at: datetime | None = None
    revoked: bool = False

    def check_token(self, issued_at: datetime | None) -> None:
        """Whether a token may open a session for this device; `None` for a token that does not say when it was made.

        Raises:
            Revoked: the device was revoked, and the token is not newer than that.
        """
        if self.revoked_at is not None and (issued_at is None or issued_at <= self.revoked_at):
            raise Revoked("this device was revoked; sign in on it again")

    def revoked_since(self, moment: datetime) -> "Device":
        """This device, revoked."""
        return replace(self, revoked_at=moment, revoked=True)


def check_device(device_id: str, kind: str) -> None:
    """Whether these may be the id and the kind of a device.

    Raises:
        Invalid: they may not.
    """
    if not 1 <= len(device_id) <= DEVICE_ID_MAX or not device_id.isprintable():
        raise Invalid(f"a device id is 1 to {DEVICE_ID_MAX} printable characters", field="device_id")
    if kind not in DEVICE_KINDS:
        raise Invalid(f"one of: {', '.join(DEVICE_KINDS)}", field="device_kind")
