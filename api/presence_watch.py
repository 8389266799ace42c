"""Who of this gateway's sessions watches whom, and the pushes that tell them what changes.

A notice (`live.presence.<user>`) says no more than "read again"; what is read is compared with what was shown last.
So a lost, late or doubled notice does no harm, and all watchers of a user here are told the same. What is lost is told
only when it stays lost (`flap_s`), unless a gateway died with it: then it has been gone for as long as a lease lasts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

import structlog

from api.presence_store import CHUNK, PresenceDown, PresenceStore
from api.presence_times import PresenceTimes
from api.presence_view import WATCH_MAX, PresenceView, Seen, presence_signal, unknown, without_loss
from api.users_here import PresenceSession, UsersHere
from domain.errors import Invalid, Unavailable
from streams import subjects
from streams.ports import Bus, BusError, Signal, Subscription

SUBSCRIBING_MAX: Final = 64  # at once, over all sessions
RETRY_S: Final = 1.0

Acquainted: TypeAlias = Callable[[str, list[str]], Awaitable[set[str]]]

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Watched:
    """A user whom sessions here watch.

    Attributes:
        shown: what they were told last; `None` until the first is answered.
        leases: that the user was online by when last read.
        told_s: when that was, unless it was an answer.
        lost_s: since when something of what is shown is gone.
    """

    listening: "asyncio.Task[Subscription]"
    watchers: dict[PresenceSession, None] = field(default_factory=dict)
    shown: PresenceView | None = None
    leases: frozenset[str] = frozenset()
    told_s: float = float("-inf")
    lost_s: float | None = None


class Watches:
    """Not for threads. Nothing is pushed unless `run` and `recheck` run.

    Args:
        acquainted: of a viewer and others, those others whose presence the viewer may see. Raises `Unavailable`.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        store: PresenceStore,
        bus: Bus,
        here: UsersHere,
        acquainted: Acquainted,
        times: PresenceTimes,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._bus = bus
        self._here = here
        self._acquainted = acquainted
        self._times = times
        self._clock = clock
        self._sessions: dict[PresenceSession, dict[str, None]] = {}
        self._viewers: dict[str, dict[PresenceSession, None]] = {}
        self._checked_s: dict[str, float] = {}  # viewers, the longest unchecked first
        self._watched: dict[str, _Watched] = {}
        self._unread: dict[str, None] = {}  # watched users to be read again, now
        self._due: dict[str, float] = {}  # and at a time
        self._leases: dict[str, float] = {}  # that live, until when
        self._stirred = asyncio.Event()
        self._subscribing = asyncio.Semaphore(SUBSCRIBING_MAX)
        self._tasks: set[asyncio.Task[Any]] = set()
        bus.on_loss(self._on_loss)

    # -- sessions -------------------------------------------------------------------------------------------

    def admit(self, session: PresenceSession) -> None:
        """A session that may watch. Idempotent."""
        if session not in self._sessions:
            self._sessions[session] = {}
            self._viewers.setdefault(session.user_id, {})[session] = None

    def dismiss(self, session: PresenceSession) -> None:
        """A session watches no more. Idempotent."""
        if session not in self._sessions:
            return
        for user_id in self._sessions.pop(session):
            self._leave(session, user_id)
        sessions = self._viewers[session.user_id]
        del sessions[session]
        if not sessions:
            del self._viewers[session.user_id]
            self._checked_s.pop(session.user_id, None)

    async def watch(self, session: PresenceSession, users: list[str]) -> tuple[list[PresenceView], list[str]]:
        """Push the changes of users to a session; what they are now, and who of them it may not watch.

        Raises:
            Invalid: more than `WATCH_MAX` users, with those it watches already; none is added then.
            Unavailable: the read models or the bus cannot be reached, or the session has ended; none is added.
        """
        known = await self._acquainted(session.user_id, users)
        watching = self._sessions.get(session)
        if watching is None:
            raise Unavailable("the session has ended")
        allowed = [user for user in users if user in known]
        added = [user for user in allowed if user not in watching]
        if len(watching) + len(added) > WATCH_MAX:
            raise Invalid(f"a session watches at most {WATCH_MAX} users", field="subscribe")
        for user_id in added:
            watching[user_id] = None
            self._enter(session, user_id)
        self._checked_s.setdefault(session.user_id, self._clock())
        try:
            # Listening before reading: what changes in between is heard.
            await asyncio.gather(*(asyncio.shield(self._watched[user_id].listening) for user_id in allowed))
        except BusError as error:
            self.unwatch(session, added)
            raise Unavailable("presence cannot be followed now; try again") from error
        unseen = [user for user in allowed if (watched := self._watched.get(user)) and watched.shown is None]
        try:
            await self._read(unseen)
        except PresenceDown:
            self._read_again(unseen)
        return [self._answered(user) for user in allowed], [user for user in users if user not in known]

    def unwatch(self, session: PresenceSession, users: Iterable[str]) -> None:
        """Push the changes of users no more; those it does not watch are passed over."""
        watching = self._sessions.get(session, {})
        for user_id in users:
            if user_id in watching:
                del watching[user_id]
                self._leave(session, user_id)

    def _enter(self, session: PresenceSession, user_id: str) -> None:
        watched = self._watched.get(user_id)
        if watched is None:
            watched = self._watched[user_id] = _Watched(self._spawn(self._listen(user_id)))
        watched.watchers[session] = None

    def _leave(self, session: PresenceSession, user_id: str) -> None:
        watched = self._watched[user_id]
        watched.watchers.pop(session, None)
        if not watched.watchers:
            del self._watched[user_id]
            self._due.pop(user_id, None)
            self._unread.pop(user_id, None)
            self._spawn(_close(watched.listening))

    def _answered(self, user_id: str) -> PresenceView:
        watched = self._watched.get(user_id)
        if watched is None:
            return unknown(user_id)
        if watched.shown is None:
            watched.shown = unknown(user_id)
        return watched.shown

    async def _listen(self, user_id: str) -> Subscription:
        def hear(_signal: Signal) -> None:
            self._read_again((user_id,))

        async with self._subscribing:
            return await self._bus.subscribe(subjects.live_presence(user_id), hear)

    def _on_loss(self, _reason: str) -> None:
        self._read_again(self._watched)

    # -- reading --------------------------------------------------------------------------------------------

    def _read_again(self, users: Iterable[str]) -> None:
        for user_id in users:
            if user_id in self._watched:
                self._unread[user_id] = None
                self._stirred.set()

    async def run(self) -> None:
        """Read what has changed and push it, and look which gateways live, until cancelled."""
        poll_s = audit_s = 0.0
        try:
            while True:
                now_s = time.monotonic()
                if now_s >= audit_s:
                    audit_s = now_s + self._times.recheck_s
                    self._read_again(self._watched)
                try:
                    if now_s >= poll_s:
                        await self._poll()
                        poll_s = self._next_poll()
                    await self._read_due()
                except PresenceDown:
                    audit_s = poll_s = 0.0  # when it is back, all may have changed
                    await asyncio.sleep(RETRY_S)
                    continue
                await self._stir(min(poll_s, audit_s))
        finally:
            await self._stop()

    async def _stir(self, until_s: float) -> None:
        """Wait for a notice and those that come with it, for what is due, or for a time."""
        due_s = min(self._due.values(), default=float("inf")) - self._clock()
        try:
            async with asyncio.timeout(max(0.0, min(due_s, until_s - time.monotonic()))):
                await self._stirred.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._times.gather_s)
        self._stirred.clear()

    def _next_poll(self) -> float:
        """In `poll_s`, or as soon as a gateway's lease ends."""
        now_s = time.monotonic()
        first_end_s = min((end_s for end_s in self._leases.values() if end_s > now_s), default=float("inf"))
        return min(now_s + self._times.poll_s, first_end_s + self._times.gather_s)

    async def _poll(self) -> None:
        own = self._here.lease  # before the look: one that begins after it is not missing
        alive = (await self._store.look([])).leases
        if own is not None and own not in alive:
            self._here.lost(own)
        ended = self._leases.keys() - alive.keys()
        if ended:
            self._read_again([user_id for user_id, watched in self._watched.items() if watched.leases & ended])
        now_s = time.monotonic()
        self._leases = {lease: now_s + left_s for lease, left_s in alive.items()}

    async def _read_due(self) -> None:
        now_s = self._clock()
        for user_id in [user_id for user_id, due_s in self._due.items() if due_s <= now_s]:
            del self._due[user_id]
            self._unread[user_id] = None
        unread, self._unread = self._unread, {}
        try:
            await self._read(unread)
        except PresenceDown:
            self._read_again(unread)
            raise

    async def _read(self, users: Iterable[str]) -> None:
        rest = iter(list(users))
        while chunk := list(islice(rest, CHUNK)):
            look = await self._store.look(chunk)
            for seen in look.users:
                watched = self._watched.get(seen.user_id)
                if watched is not None:
                    self._judge(watched, seen)

    def _judge(self, watched: _Watched, seen: Seen) -> None:
        """Push what is seen if it is to be shown now; else see when."""
        shown, view, now_s = watched.shown, seen.view, self._clock()
        crashed = bool(watched.leases & seen.crashed)
        watched.leases = seen.leases
        if shown is None:
            watched.shown = view
            return
        if view.status == shown.status == "offline" and view.last_seen is None:
            return  # a flush took that; whoever remembers it puts it back
        kept = without_loss(shown, view)
        if kept == view or crashed:
            watched.lost_s = None
        elif watched.lost_s is None:
            watched.lost_s = now_s
        if watched.lost_s is not None and now_s < watched.lost_s + self._times.flap_s:
            self._read_at(view.user_id, watched.lost_s + self._times.flap_s)
            view = kept
        if view == shown:
            return
        if now_s < watched.told_s + self._times.push_every_s:
            self._read_at(view.user_id, watched.told_s + self._times.push_every_s)
            return
        watched.shown, watched.told_s = view, now_s
        self._push(view, watched.watchers)

    @staticmethod
    def _push(view: PresenceView, sessions: Iterable[PresenceSession]) -> None:
        payload = presence_signal(view)
        for session in tuple(sessions):  # a push may close a session, which is then dismissed
            session.push_signal(payload)

    def _read_at(self, user_id: str, due_s: float) -> None:
        self._due[user_id] = min(due_s, self._due.get(user_id, due_s))

    # -- acquaintance ---------------------------------------------------------------------------------------

    async def recheck(self) -> None:
        """Ask again whom each viewer may watch, each once in `recheck_s`, until cancelled."""
        while True:
            viewer = next(iter(self._checked_s), None)
            due_s = self._clock() if viewer is None else self._checked_s[viewer]
            ahead_s = due_s + self._times.recheck_s - self._clock()
            if viewer is None or ahead_s > 0:
                await asyncio.sleep(min(self._times.recheck_s, max(ahead_s, 0)))
                continue
            del self._checked_s[viewer]
            sessions = list(self._viewers.get(viewer, ()))
            users = list({user_id: None for session in sessions for user_id in self._sessions[session]})
            if users:
                self._checked_s[viewer] = self._clock()
                await self._check(viewer, sessions, users)

    async def _check(self, viewer: str, sessions: list[PresenceSession], users: list[str]) -> None:
        try:
            known = await self._acquainted(viewer, users)
        except Unavailable as error:
            log.warning("who may watch whom could not be checked; again later", error=repr(error))
            return
        for session in sessions:
            watching = self._sessions.get(session, {})
            strangers = [user_id for user_id in users if user_id in watching and user_id not in known]
            self.unwatch(session, strangers)
            for user_id in strangers:
                session.push_signal(presence_signal(unknown(user_id)))

    # -- its end --------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        for session in list(self._sessions):
            self.dismiss(session)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _close(listening: "asyncio.Task[Subscription]") -> None:
    # Not cancelled: the server may know of it by now, and would send for ever.
    (outcome,) = await asyncio.gather(listening, return_exceptions=True)
    if not isinstance(outcome, BaseException):
        await outcome.close()
