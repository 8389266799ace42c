"""The gateway: the sessions of this process, what they listen to, and how they end together.

One subscription a connected user (`live.user.*`: into and out of which conversations they are put), one a conversation
with sessions here (`live.conv.*`: its events, by JetStream's republish). All conversations are fanned out on reading;
when small ones are addressed to their members, their events will come through `_UserFeed.hear`.

How a session begins without a gap: listen for the user, wait until the read models have what the log had by then
(`Tail`), read the memberships, listen to each conversation; after that, once more, look for what was stored before
a conversation was listened to (`_settle`).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog

from api.errors import RateLimited
from api.frames import joins
from api.live import EventReader, LiveConversation
from api.push_metrics import CLOSED, CONVERSATIONS, SESSIONS
from api.sessions import CloseCode, Flusher, Outlet, Session, SessionLimits
from api.tail import Positions, Tail
from domain.errors import Unavailable
from projections.pages import Membership
from streams import subjects
from streams.codec import event_version
from streams.cursor import Cursor
from streams.ports import Bus, BusError, Log, Signal, Subscription

SUBSCRIBING_MAX: Final = 64  # at once, over all sessions
LINGER_S: Final = 30.0  # a conversation nobody is in is listened to for so long: sessions come back
LOSS_SPREAD_S: Final = 2.0  # over which sessions are told that their position is lost
SETTLE_RETRY_S: Final = 0.5
TICK_S: Final = 1.0

_LIMITS: Final = SessionLimits()

log_ = structlog.get_logger(__name__)


class Reads(EventReader, Positions, Protocol):
    """What the gateway asks of `projections.queries.Queries`."""

    async def memberships(self, user_id: str) -> list[Membership]:
        """All conversations of a user, each with a version up to which the membership is known to stand."""
        ...

    async def newest_versions(self, conversation_ids: Sequence[int]) -> dict[int, int]:
        """The newest version of each conversation that can be read."""
        ...

    async def is_member(self, conversation_id: int, user_id: str) -> bool:
        """Whether a user is in a conversation, as far as the read model has come."""
        ...


class TooManySessions(RateLimited):
    """The user has as many sessions here as one may have."""


class Draining(Unavailable):
    """This gateway lets no session in any more."""


class _Listening:
    """A subscription that is being made, or stands; shared by all who need it."""

    def __init__(self, subscribing: Coroutine[Any, Any, Subscription]) -> None:
        self.opening = asyncio.ensure_future(subscribing)

    @property
    def stands(self) -> bool:
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None

    async def ready(self) -> None:
        """Raises Unavailable."""
        try:
            await asyncio.shield(self.opening)
        except BusError as error:
            raise Unavailable("push cannot be reached; try again") from error

    async def close(self) -> None:
        # Not cancelled: the server may know of it by now, and would send for ever.
        (outcome,) = await asyncio.gather(self.opening, return_exceptions=True)
        if not isinstance(outcome, BaseException):
            await outcome.close()


@dataclass(slots=True, eq=False)
class _User:
    """A connected user."""

    listening: _Listening
    sessions: dict[Session, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Feed:
    """A conversation that is listened to."""

    live: LiveConversation
    listening: _Listening


class Gateway:
    """Made once a process, in its event loop; `run` while it serves.

    Args:
        bus: where events are heard.
        log: asked for its end only.
        cursor_key: the deployment's secret for cursors.
    """

    def __init__(
        self, bus: Bus, log: Log, queries: Reads, *, cursor_key: bytes, limits: SessionLimits = _LIMITS
    ) -> None:
        self.limits = limits
        self._bus = bus
        self._queries = queries
        self._cursor_key = cursor_key
        self._loop = asyncio.get_running_loop()
        self._flusher = Flusher()
        self._tail = Tail(log, queries)
        self._users: dict[str, _User] = {}
        self._feeds: dict[int, _Feed] = {}
        self._idle: dict[int, float] = {}  # feeds without a session, since when, oldest first
        self._sessions: dict[Session, None] = {}
        self._unsettled: set[int] = set()
        self._settling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscribing = asyncio.Semaphore(SUBSCRIBING_MAX)
        self._draining = False
        bus.on_loss(self._on_loss)

    @property
    def session_count(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    # -- a session's beginning ------------------------------------------------------------------------------

    def admit(self, user_id: str, outlet: Outlet, *, expires_at: float) -> Session:
        """A new session of an authenticated user. Nothing is pushed to it before `connect`.

        Args:
            expires_at: when the token ends, Unix seconds.

        Raises:
            TooManySessions: of this user. Draining.
        """
        if self._draining:
            raise Draining("this server is stopping; connect again")
        user = self._users.get(user_id)
        if user is not None and len(user.sessions) >= self.limits.per_user:
            raise TooManySessions(f"a user has at most {self.limits.per_user} sessions", retry_after_s=60)
        session = Session(
            user_id,
            outlet,
            self._flusher,
            expires_s=self._loop.time() + expires_at - time.time(),
            limit_bytes=self.limits.buffer_bytes,
            on_close=self._on_close,
        )
        if user is None:
            listening = self._listen(subjects.live_user(user_id), partial(self._hear_user, user_id))
            user = self._users[user_id] = _User(listening)
        user.sessions[session] = None
        self._sessions[session] = None
        SESSIONS.labels(outlet.door).inc()
        return session

    async def connect(self, session: Session) -> str:
        """Attach a session to all conversations of its user; the cursor from which everything will be pushed.

        Pushes wait in the session until it is started.

        Raises:
            Unavailable: the log, the bus or the read models cannot be reached.
        """
        await self._users[session.user_id].listening.ready()
        positions = await self._tail.caught_up()
        missing = []
        for membership in await self._queries.memberships(session.user_id):
            feed = self._feeds.get(membership.conversation_id)
            if feed is not None and feed.listening.stands:
                self._attach(session, feed, membership.version)
            else:
                missing.append(self._enter(session, membership.conversation_id, membership.version))
        await asyncio.gather(*missing)
        return Cursor(positions).encode(self._cursor_key)

    async def _enter(self, session: Session, conversation_id: int, after: int) -> None:
        if session.closed:
            return
        feed = self._feeds.get(conversation_id) or self._open_feed(conversation_id)
        await feed.listening.ready()
        self._attach(session, feed, after)

    def _attach(self, session: Session, feed: _Feed, after: int) -> None:
        self._idle.pop(feed.live.id, None)
        feed.live.attach(session, after)
        if feed.live.idle:
            self._on_idle(feed.live)

    # -- listening ------------------------------------------------------------------------------------------

    def _open_feed(self, conversation_id: int) -> _Feed:
        live = LiveConversation(conversation_id, self._queries, spawn=self._spawn, on_idle=self._on_idle)
        listening = self._listen(subjects.live_conversation(str(conversation_id)), live.hear)
        feed = self._feeds[conversation_id] = _Feed(live, listening)
        self._idle[conversation_id] = self._loop.time()
        CONVERSATIONS.inc()
        listening.opening.add_done_callback(lambda _: self._on_opened(feed))
        return feed

    def _on_opened(self, feed: _Feed) -> None:
        if not feed.listening.stands:
            self._close_feed(feed)
        elif not self._draining:
            self._settle([feed.live.id])

    def _close_feed(self, feed: _Feed) -> None:
        del self._feeds[feed.live.id]
        self._idle.pop(feed.live.id, None)
        CONVERSATIONS.dec()
        self._spawn(feed.listening.close())

    def _listen(self, subject: str, callback: Callable[[Signal], None]) -> _Listening:
        async def subscribe() -> Subscription:
            async with self._subscribing:
                return await self._bus.subscribe(subject, callback)

        return _Listening(subscribe())

    def _hear_user(self, user_id: str, signal: Signal) -> None:
        """A user was put into a conversation, or out of one."""
        joined = joins(signal)
        if joined is None or user_id not in self._users:
            return
        conversation_id = int(subjects.aggregate_id(signal.headers[subjects.NATS_SUBJECT]))
        version = event_version(signal.headers)
        if conversation_id in self._feeds:
            # The conversation itself puts its sessions out when it comes to such an event: now it will come.
            self._feeds[conversation_id].live.expect(version)
        if joined:
            self._spawn(self._invite(user_id, conversation_id, after=version - 1))

    async def _invite(self, user_id: str, conversation_id: int, *, after: int) -> None:
        """Attach a user's sessions to a conversation they were put into, unless they are out of it again."""
        try:
            await self._tail.caught_up()
            if not await self._queries.is_member(conversation_id, user_id):
                return
            for session in self._sessions_of(user_id):
                await self._enter(session, conversation_id, after)
        except Unavailable as error:
            log_.warning("could not attach a user", conversation_id=conversation_id, error=repr(error))
            for session in self._sessions_of(user_id):
                session.close(CloseCode.POSITION_LOST, "a new conversation could not be read")

    def _sessions_of(self, user_id: str) -> list[Session]:
        user = self._users.get(user_id)
        return list(user.sessions) if user is not None else []

    # -- what was stored before it was listened to ----------------------------------------------------------

    def _settle(self, conversation_ids: Iterable[int]) -> None:
        self._unsettled.update(conversation_ids)
        if self._settling is None and self._unsettled:
            self._settling = self._spawn(self._settle_all())

    async def _settle_all(self) -> None:
        try:
            while self._unsettled:
                batch = list(self._unsettled)
                self._unsettled.clear()
                try:
                    await self._tail.caught_up()
                    versions = await self._queries.newest_versions(batch)
                except Unavailable as error:
                    log_.warning("could not look for missed events; trying again", error=repr(error))
                    self._unsettled.update(batch)
                    await asyncio.sleep(SETTLE_RETRY_S)
                    continue
                for conversation_id, version in versions.items():
                    if conversation_id in self._feeds:
                        self._feeds[conversation_id].live.expect(version)
        finally:
            self._settling = None

    # -- a session's end ------------------------------------------------------------------------------------

    def _on_close(self, session: Session, code: CloseCode | None) -> None:
        SESSIONS.labels(session.outlet.door).dec()
        if code is not None:
            CLOSED.labels(int(code)).inc()
        del self._sessions[session]
        user = self._users[session.user_id]
        del user.sessions[session]
        if not user.sessions:
            del self._users[session.user_id]
            self._spawn(user.listening.close())

    def _on_idle(self, live: LiveConversation) -> None:
        if live.id in self._feeds:
            self._idle[live.id] = self._loop.time()

    def _on_loss(self, reason: str) -> None:
        """Nobody knows what was missed: sessions are told, and conversations look for it."""
        log_.warning("push may have lost events; sessions are to resume", reason=reason, sessions=len(self._sessions))
        self._settle(self._feeds)
        self._spawn(self._close_all(CloseCode.POSITION_LOST, "events may have been missed", LOSS_SPREAD_S))

    async def drain(self, over_s: float) -> None:
        """Let no session in any more, and close all, spread over a time in seconds."""
        self._draining = True
        await self._close_all(CloseCode.DRAINING, "this server is stopping", over_s)

    async def _close_all(self, code: CloseCode, reason: str, over_s: float) -> None:
        """Spread, so that they do not all come back at once."""
        sessions = list(self._sessions)
        began_s = self._loop.time()
        for i, session in enumerate(sessions):
            ahead_s = began_s + over_s * i / len(sessions) - self._loop.time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            session.close(code, reason)

    # -- its life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep time for all sessions until cancelled; then close what is left, and listen no more."""
        ping_s = self.limits.ping_s
        tick_s = min(TICK_S, ping_s / 4)
        try:
            while True:
                await asyncio.sleep(tick_s)
                now_s = self._loop.time()
                for session in list(self._sessions):
                    session.tick(now_s, ping_s, tick_s)
                self._close_idle(now_s - LINGER_S)
        finally:
            await self._stop()

    def _close_idle(self, before_s: float) -> None:
        while self._idle:
            conversation_id = next(iter(self._idle))
            if self._idle[conversation_id] > before_s:
                return
            self._close_feed(self._feeds[conversation_id])

    async def _stop(self) -> None:
        await self.drain(0)
        for feed in list(self._feeds.values()):
            self._close_feed(feed)
        if self._settling is not None:
            self._settling.cancel()
        await self._tail.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_.error("the gateway failed at something", error=repr(error), exc_info=error)
