"""Given events of a user, when they command, then events. See `tests.domain.given`, whose facts these are."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from domain import events
from domain.devices import Device
from domain.events import Event
from domain.own_settings import OwnSettings
from domain.profiles import Profile
from domain.users import User
from tests.domain.given import START, Decided, Fact, own_fields

ANN = "ann"


def profiled(
    display_name: str | None = None, avatar_url: str | None = None, attributes: dict[str, str] | None = None
) -> Fact:
    fields = {"display_name": display_name, "avatar_url": avatar_url, "attributes": attributes or {}}
    return Fact(events.ProfileUpdated, ANN, fields)


def registered(device_id: str, kind: str = "mobile") -> Fact:
    return Fact(events.DeviceRegistered, ANN, {"device_id": device_id, "kind": kind})


def revoked(device_id: str) -> Fact:
    return Fact(events.DeviceRevoked, ANN, {"device_id": device_id})


def read(conversation_id: int, seq: int) -> Fact:
    return Fact(events.ReadMoved, ANN, {"conversation_id": conversation_id, "seq": seq})


def blocked(user_id: str) -> Fact:
    return Fact(events.UserBlocked, ANN, {"user_id": user_id})


def unblocked(user_id: str) -> Fact:
    return Fact(events.UserUnblocked, ANN, {"user_id": user_id})


def settled(
    conversation_id: int, *, muted_until: datetime | None = None, pinned: bool = False, hidden: bool = False
) -> Fact:
    """Own settings of a conversation."""
    fields = {"muted_until": muted_until, "pinned": pinned, "hidden": hidden}
    return Fact(events.SettingsUpdated, ANN, {"conversation_id": conversation_id, **fields})


class UserStory:
    """A user who commands, `step` apart."""

    def __init__(self, user: User, *, step: timedelta = timedelta(seconds=1)) -> None:
        self.user = user
        self._step = step
        self._now = max(user.modified_on, START)

    @property
    def now(self) -> datetime:
        """The time of the newest command."""
        return self._now

    def wait(self, seconds: float) -> None:
        """Let time go by: the next command comes this much, and a step, after the newest."""
        self._now += timedelta(seconds=seconds)

    def profile(self, **changes: Any) -> Profile:
        return self.user.update_profile(**changes, now=self._tick())

    def register(self, device_id: str, kind: str = "mobile", *, token_issued_at: datetime | None = None) -> Device:
        return self.user.register_device(
            device_id=device_id, kind=kind, token_issued_at=token_issued_at, now=self._tick()
        )

    def revoke(self, device_id: str) -> Device:
        return self.user.revoke_device(device_id=device_id, now=self._tick())

    def read(self, conversation_id: int, seq: int) -> int:
        return self.user.move_read(conversation_id=conversation_id, seq=seq, now=self._tick())

    def settle(self, conversation_id: int, **changes: Any) -> OwnSettings:
        return self.user.change_own_settings(conversation_id=conversation_id, **changes, now=self._tick())

    def block(self, user_id: str) -> None:
        self.user.block(user_id=user_id, now=self._tick())

    def unblock(self, user_id: str) -> None:
        self.user.unblock(user_id=user_id, now=self._tick())

    def then(self) -> list[Decided]:
        """What was decided since the last call: all of it, in order."""
        return [(event.TOPIC, own_fields(event)) for event in self.take()]

    def take(self) -> list[Event]:
        """The same, as events."""
        return [cast(Event, event) for event in self.user.collect_events()]

    def _tick(self) -> datetime:
        self._now += self._step
        return self._now


def given_user(*facts: Fact, step: timedelta = timedelta(seconds=1)) -> UserStory:
    """A user with this history, numbered and a second apart, after their first event."""
    history = [
        fact.kind(
            originator_id=ANN,
            originator_version=version,
            timestamp=START + timedelta(seconds=version),
            actor_id=fact.actor_id,
            **fact.fields,
        )
        for version, fact in enumerate([Fact(events.UserCreated, ANN, {"originator_topic": User.TOPIC}), *facts], 1)
    ]
    return UserStory(folded_user(history), step=step)


def folded_user(history: Sequence[Event]) -> User:
    """The state that a history of events makes."""
    aggregate: Any = None
    for event in history:
        aggregate = event.mutate(aggregate)
    return cast(User, aggregate)
