"""What others see of a user: the presence view, made of what Valkey holds. Pure.

A user is online while a live gateway holds a session of theirs. What they chose (`busy`, `away`, `invisible`) and how
long they have done nothing colour that; invisible looks as offline does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from streams.public import rfc3339

ChosenStatus: TypeAlias = Literal["online", "busy", "away", "invisible"]
Status: TypeAlias = Literal["online", "away", "busy", "offline", "unknown"]

WATCH_MAX: Final = 500  # users a session may watch, or ask for: a screen of contacts many times over

_CHOSEN: Final[dict[bytes, ChosenStatus]] = {status.encode(): status for status in get_args(ChosenStatus)}

_encode = msgspec.json.Encoder().encode


class PresenceView(msgspec.Struct, frozen=True):
    """One user, as acquaintances see them.

    Attributes:
        status: `unknown` when it cannot be told now, or not to this viewer any more.
        devices: the kinds with a session, sorted; empty unless online, away or busy.
        last_seen: since when they are offline, where that is known.
    """

    user_id: str
    status: Status
    devices: tuple[str, ...] = ()
    last_seen: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The status a user chose, and when, Unix milliseconds."""

    status: ChosenStatus
    at_ms: int

    def packed(self) -> bytes:
        """As Valkey holds it, and its scripts read it."""
        return b"%d:%b" % (self.at_ms, self.status.encode())

    @classmethod
    def unpacked(cls, data: bytes) -> "Choice | None":
        """What was packed; `None` for what is no choice."""
        at_ms, _, status = data.partition(b":")
        if status not in _CHOSEN or not at_ms.isdigit():
            return None
        return cls(_CHOSEN[status], int(at_ms))


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A user's sessions on one gateway.

    Attributes:
        lease: of the gateway, without which this says nothing.
        kinds: of the devices, sorted.
        idle: nothing was done in any of them for a while.
    """

    lease: str
    kinds: tuple[str, ...]
    idle: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a user at one moment.

    Attributes:
        entries: of live gateways.
        last_seen_ms: when they were last seen to leave, or to be here by a gateway that has crashed.
        crashed: leases of gateways that held them and were not heard again: those sessions have been away for as long
            as a lease lasts.
    """

    user_id: str
    entries: tuple[Entry, ...] = ()
    choice: Choice | None = None
    last_seen_ms: int | None = None
    crashed: frozenset[str] = frozenset()

    @property
    def leases(self) -> frozenset[str]:
        """Of the gateways that hold the user."""
        return frozenset(entry.lease for entry in self.entries)

    @property
    def view(self) -> PresenceView:
        """What others see."""
        chosen = self.choice.status if self.choice is not None else "online"
        if not self.entries or chosen == "invisible":
            return PresenceView(self.user_id, "offline", last_seen=_time(self.last_seen_ms))
        status: Status = chosen
        if chosen == "online" and all(entry.idle for entry in self.entries):
            status = "away"
        return PresenceView(
            self.user_id, status, tuple(sorted({kind for entry in self.entries for kind in entry.kinds}))
        )


def unknown(user_id: str) -> PresenceView:
    """Of whom nothing can be said."""
    return PresenceView(user_id, "unknown")


def without_loss(shown: PresenceView, seen: PresenceView) -> PresenceView:
    """What is seen, as if nothing that was shown had gone: a session that is back in a moment was never away.

    Nor is who was unknown offline at once: after an outage gateways need a moment to say who is here.
    """
    if shown.status == "offline":
        return seen
    if not seen.devices:
        return shown
    return msgspec.structs.replace(seen, devices=tuple(sorted({*shown.devices, *seen.devices})))


def presence_signal(view: PresenceView) -> bytes:
    """The push that tells a view."""
    return _encode({"signal": {"type": "presence", **msgspec.structs.asdict(view)}})


def status_signal(status: ChosenStatus) -> bytes:
    """The push that tells a user's own sessions what the user chose."""
    return _encode({"signal": {"type": "status", "status": status}})


class _StatusSignal(msgspec.Struct, tag="status", tag_field="type", frozen=True):
    status: ChosenStatus


class _StatusPush(msgspec.Struct, frozen=True):
    signal: _StatusSignal


_decode_status = msgspec.json.Decoder(_StatusPush).decode


def chosen_in(data: bytes) -> ChosenStatus:
    """The status that `status_signal` tells. Raises `msgspec.MsgspecError` when it is no such signal."""
    return _decode_status(data).signal.status


def _time(ms: int | None) -> str | None:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC)) if ms is not None else None
