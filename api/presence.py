"""Presence: who is online, as acquaintances may see it.

What the gateway calls on its way (`connected`, `disconnected`, `active`) only notes; `run` does the work. While
Valkey does not answer, nobody's presence is known, and nothing else suffers.

Made of: the users here (`users_here`), who watches whom (`presence_watch`), Valkey (`presence_store`), and what
others see (`presence_view`).
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec
import redis.asyncio
import structlog

from api.presence_store import CHUNK, PresenceDown, PresenceStore
from api.presence_times import PresenceTimes
from api.presence_view import WATCH_MAX, Choice, ChosenStatus, PresenceView, chosen_in, status_signal, unknown
from api.presence_watch import Acquainted, Watches
from api.users_here import PresenceSession, UsersHere
from domain.errors import Invalid, Unavailable
from domain.ids import check_user_id
from streams import subjects
from streams.ports import Bus, Signal

STATUS: Final = "status"  # the kind of signal that tells a user's own sessions what the user chose

log = structlog.get_logger(__name__)


class PresenceAnswer(msgspec.Struct, frozen=True):
    """What was asked for; in `unknown` those whose presence the user may not see, or who do not exist."""

    users: list[PresenceView]
    unknown: list[str]


class Presence:
    """One object a gateway.

    Args:
        valkey: opened and closed by its maker; answers bytes.
        acquainted: of a viewer and others, those others who share a conversation with the viewer and have not blocked
            them. Raises `Unavailable`.
        gateway_id: never another process's, nor an earlier one's.
        prefix: of all keys.
        clock: seconds that only rise, for what is idle, lost or told.
        wall_ms: Unix milliseconds.
    """

    def __init__(
        self,
        valkey: "redis.asyncio.Redis",
        bus: Bus,
        acquainted: Acquainted,
        *,
        gateway_id: str | None = None,
        prefix: str = "riverrun:",
        times: PresenceTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.gateway_id = gateway_id = gateway_id or secrets.token_urlsafe(9)
        times = times or PresenceTimes()
        self._bus = bus
        self._acquainted = acquainted
        self._wall_ms = wall_ms
        self._store = PresenceStore(valkey, gateway_id, lease_s=times.lease_s, prefix=prefix)
        self._here = UsersHere(self._store, bus, gateway_id, times, clock=clock, wall_ms=wall_ms)
        self._watches = Watches(self._store, bus, self._here, self._known_to, times, clock=clock)

    async def run(self) -> None:
        """Tell others of the users here, and the sessions here of others, until cancelled; then all here have left."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._here.run())
            group.create_task(self._watches.run())
            group.create_task(self._watches.recheck())

    # -- on the gateway's way: nothing here waits -----------------------------------------------------------

    def connected(self, session: PresenceSession) -> None:
        """A session has begun. Idempotent."""
        self._watches.admit(session)
        self._here.connected(session)

    def disconnected(self, session: PresenceSession) -> None:
        """A session has ended, and watches nobody any more. Idempotent."""
        self._watches.dismiss(session)
        self._here.disconnected(session)

    def active(self, session: PresenceSession) -> None:
        """A session has asked for something other than `ping`."""
        self._here.active(session)

    def hear_own(self, user_id: str, signal: Signal) -> None:
        """A signal of kind `STATUS` to a user with sessions here: what they chose at some gateway."""
        try:
            self._here.chosen(user_id, Choice(chosen_in(signal.data), self._wall_ms()))
        except msgspec.MsgspecError as error:
            log.error("a status could not be read", user_id=user_id, error=repr(error))

    # -- asked by clients -----------------------------------------------------------------------------------

    async def set_status(self, user_id: str, status: ChosenStatus) -> None:
        """Choose a status: kept for 30 days, seen by all who watch, and told to the user's own sessions.

        Raises:
            Unavailable: Valkey does not answer; it may have been chosen nevertheless.
        """
        choice = Choice(status, self._wall_ms())
        try:
            await self._store.choose(user_id, choice)
        except PresenceDown as error:
            raise Unavailable("presence cannot be changed now; try again") from error
        self._here.chosen(user_id, choice)
        await self._bus.publish(subjects.live_presence(user_id), b"")
        headers = {subjects.SIGNAL: STATUS, subjects.SENDER: user_id}
        await self._bus.publish(subjects.live_user(user_id), status_signal(status), headers)

    async def chosen(self, user_id: str) -> ChosenStatus:
        """What a user chose last; `online` for who never did.

        Raises:
            Unavailable: Valkey does not answer.
        """
        try:
            return await self._store.chosen(user_id)
        except PresenceDown as error:
            raise Unavailable("presence cannot be read now; try again") from error

    async def watch(self, session: PresenceSession, users: Iterable[str]) -> PresenceAnswer:
        """Push the changes of users to a connected session, and say how they are now.

        A push about a user that goes out before this answer is at least as new: it goes before it.

        Raises:
            Invalid: a malformed user id, or with those watched already more than 500; nothing was changed.
            Unavailable: the read models or the bus cannot be reached, or the session has ended; nothing was changed.
        """
        return PresenceAnswer(*await self._watches.watch(session, _checked(users, field="subscribe")))

    def unwatch(self, session: PresenceSession, users: Iterable[str]) -> None:
        """Push the changes of users no more; those that are not watched are passed over. Never waits."""
        self._watches.unwatch(session, users)

    async def of(self, viewer_id: str, users: Iterable[str]) -> PresenceAnswer:
        """How users are now, in the order asked for, each once.

        Raises:
            Invalid: a malformed user id, or more than 500.
            Unavailable: the read models cannot be reached. Not for Valkey: then the status of all is `unknown`.
        """
        asked = _checked(users, field="users")
        known = await self._known_to(viewer_id, asked)
        views: list[PresenceView] = []
        rest = iter([user for user in asked if user in known])
        while chunk := list(islice(rest, CHUNK)):
            try:
                views += (seen.view for seen in (await self._store.look(chunk)).users)
            except PresenceDown:
                views += map(unknown, chunk)
        return PresenceAnswer(views, [user for user in asked if user not in known])

    async def _known_to(self, viewer_id: str, others: list[str]) -> set[str]:
        """Those whose presence a viewer may see: acquaintances, and the viewer, as others see them."""
        return await self._acquainted(viewer_id, others) | {viewer_id}


def _checked(users: Iterable[str], *, field: str) -> list[str]:
    """User ids, each once."""
    once = list(dict.fromkeys(users))
    if len(once) > WATCH_MAX:
        raise Invalid(f"at most {WATCH_MAX} users", field=field)
    return [check_user_id(user, field=field) for user in once]
