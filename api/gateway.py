"""The gateway: the sessions of this process, whom they are of, and how they begin and end.

One subscription a connected user (`live.user.*`: the user's own events, the events of their small conversations, into
and out of which conversations they are put, signals), one a large conversation with sessions here (`api.feeds`).

How a session begins without a gap: listen for the user, wait until the read models have what the log had by then
(`Tail`), read, in one snapshot, the memberships (or, for a session that comes with a cursor, all that was missed as
well), then push what follows. Versions join what was read to what is heard.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog

from api.audit import Audit
from api.feeds import Feeds
from api.frames import joins, own_frame, revoked_device
from api.listening import Listener, Listening
from api.live import EventReader
from api.position import Position
from api.presence import STATUS, Presence
from api.push_metrics import CLOSED, SESSIONS
from api.refusals import Draining, Full, TooManySessions
from api.resume import Resume
from api.sessions import Began, CloseCode, DeviceInfo, Flusher, Outlet, Session, SessionLimits, tick_all
from api.tail import PositionReader, Tail
from api.testimony import Witness
from api.trail import Trail
from api.turns import Turns
from api.typing import Typing
from domain.errors import Unavailable
from domain.events import DeviceRevoked
from domain.ids import partition_of, slot_of
from projections.pages import Membership
from projections.push import PushQueries
from projections.sync import SyncQueries
from streams import subjects
from streams.codec import event_version
from streams.cursor import Cursor
from streams.ports import Bus, Log, Signal

LOSS_SPREAD_S: Final = 2.0  # over which sessions are told that their position is lost
TICK_S: Final = 1.0
BEGINNING_MAX: Final = 128  # sessions at once: they fill two rounds of look-ups, and a turn of the loop stays short
WAITING_MAX: Final = 5_000  # for their turn: about what is let in while a client waits

_LIMITS: Final = SessionLimits()

log_ = structlog.get_logger(__name__)


class Reader(EventReader, PositionReader, Protocol):
    """What the gateway asks of `projections.queries.Queries`."""


@dataclass(slots=True, eq=False)
class _User:
    """A connected user. See `api.audit.AuditedUser`."""

    listening: Listening
    sessions: dict[Session, None] = field(default_factory=dict)
    version: int | None = None
    stirred: int = 0  # counts what a session that is connecting has to find in what it reads
    settled: int = 0  # how much of that the read models are known to have


class Gateway:
    """Made once a process, in its event loop; `run` while it serves.

    Args:
        bus: where events are heard.
        log: asked for its end only.
        cursor_key: the deployment's secret for cursors.
        partitions: of the deployment.
        fanout_limit: members up to which a conversation's events are addressed to each; the same in all processes.
    """

    def __init__(
        self,
        bus: Bus,
        log: Log,
        queries: Reader,
        push: PushQueries,
        sync: SyncQueries,
        *,
        presence: Presence,
        cursor_key: bytes,
        partitions: int,
        fanout_limit: int,
        limits: SessionLimits = _LIMITS,
    ) -> None:
        self.limits = limits
        self.presence = presence
        self.typing = Typing(bus)
        self.tail = Tail(log, queries)
        self._push = push
        self._cursor_key = cursor_key
        self._partitions = partitions
        self._loop = asyncio.get_running_loop()
        self._flusher = Flusher()
        self._turns = Turns(at_once=BEGINNING_MAX, waiting_max=WAITING_MAX)
        self._listener = Listener(bus)
        self._resume = Resume(sync, cursor_key, partitions=partitions, max_bytes=limits.buffer_bytes // 2)
        self._trail = trail = Trail()
        self._feeds = Feeds(
            self._listener, queries, push, self.tail, trail, fanout_limit=fanout_limit, spawn=self._spawn
        )
        self._witness = Witness(bus, trail, name=presence.gateway_id, users=lambda: self._users)
        self._audit = Audit(self._feeds, push, self.tail, users=lambda: self._users, invite=self._invite_soon)
        self._users: dict[str, _User] = {}
        self._sessions: dict[Session, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._inviting: dict[int, asyncio.Task[Any] | None] = {}  # the last of each conversation
        self._draining = False
        bus.on_loss(self._on_loss)

    @property
    def session_count(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    def sealed(self, cursor: Cursor, user_id: str) -> str:
        """A cursor as a client is given it."""
        return cursor.encode(self._cursor_key, user_id)

    def unsealed(self, token: str, user_id: str) -> Cursor:
        """The cursor that a client was given.

        Raises:
            BadCursor: it was not.
        """
        return Cursor.decode(token, self._cursor_key, user_id, partitions=self._partitions)

    # -- a session's beginning ------------------------------------------------------------------------------

    def admit(self, user_id: str, outlet: Outlet, *, device: DeviceInfo, expires_at: float) -> Session:
        """A new session of an authenticated user. Nothing is pushed to it before `connect`.

        Args:
            expires_at: when the token ends, Unix seconds.

        Raises:
            TooManySessions: of this user. Full, Draining.
        """
        if self._draining:
            raise Draining("this server is stopping; connect again")
        if len(self._sessions) >= self.limits.in_all:
            raise Full(f"this server has {self.limits.in_all:,} sessions, as many as it may; try again, or another")
        user = self._users.get(user_id)
        if user is not None and len(user.sessions) >= self.limits.per_user:
            raise TooManySessions(f"a user has at most {self.limits.per_user} sessions", retry_after_s=60)
        session = Session(
            user_id,
            outlet,
            self._flusher,
            device=device,
            expires_s=self._loop.time() + expires_at - time.time(),
            limits=self.limits,
            on_close=self._on_close,
        )
        if user is None:
            listening = self._listener.listen(subjects.live_user(user_id), partial(self._hear_user, user_id))
            user = self._users[user_id] = _User(listening)
        user.sessions[session] = None
        self._sessions[session] = None
        SESSIONS.labels(outlet.door).inc()
        return session

    async def listen(self, session: Session) -> None:
        """Wait until everything about the session's user is heard, and the read models have all that was before.

        Raises:
            Unavailable: the log, the bus or the read models cannot be reached.
        """
        user = self._users[session.user_id]
        await user.listening.ready()
        heard = user.stirred
        await self.tail.caught_up()
        user.settled = max(user.settled, heard)

    async def connect(self, session: Session, cursor: str | None, versions: Mapping[int, int]) -> tuple[str, bool]:
        """Attach a session, after `listen`, to all conversations of its user.

        Pushes wait in the session until it is started; what was missed since the cursor is the first of them.

        Args:
            cursor: of an earlier session, or of an inbox or a sync.
            versions: of conversations of which the client has more than the cursor says.

        Returns:
            The cursor from which everything will be pushed, and whether everything since the given one is among it.

        Raises:
            Crowded: too many wait for that. Unavailable: the log, the bus or the read models cannot be reached.
        """
        async with self._turns.turn():
            return await self._connect(session, cursor, versions)

    async def _connect(self, session: Session, cursor: str | None, versions: Mapping[int, int]) -> tuple[str, bool]:
        user = self._users[session.user_id]
        while True:
            stirred = user.stirred
            if user.settled < stirred:  # the device that the session is of was registered, for one
                await self.tail.caught_up()
                user.settled = max(user.settled, stirred)
            resumed = await self._resume.missed(session.user_id, cursor, versions) if cursor else None
            start = resumed or await self._push.attachable(session.user_id)
            if user.stirred == stirred:  # else what was heard meanwhile belongs to what is read
                break
        session.place(resumed.position if resumed else Position(self._cursor_key, session.user_id, start.base))
        session.began = Began(time.time(), start.base, resumed.held if resumed else None)
        token = session.position.token()
        if user.version is None:  # else what is newer than that is on its way, to the sessions before this one, too
            user.version = start.user_version
        if resumed is not None:
            resumed.push_to(session)
        await asyncio.gather(*[self._feeds.enter(session, membership) for membership in start.memberships])
        self.presence.connected(session)
        return token, resumed is not None

    # -- what concerns a user -------------------------------------------------------------------------------

    def _hear_user(self, user_id: str, signal: Signal) -> None:
        """An event of the user's own, one of a conversation addressed to the user, or a signal."""
        user = self._users.get(user_id)
        if user is None:
            return
        if (kind := signal.headers.get(subjects.SIGNAL)) is not None:
            self._hear_signal(user_id, user, kind, signal)
            return
        subject = signal.headers[subjects.NATS_SUBJECT]
        if subjects.family_of(subject) == subjects.USER:
            self._hear_own(user, signal)
            return
        conversation_id = int(subjects.aggregate_id(subject))
        joined = joins(signal, user_id)
        if joined:
            user.stirred += 1
            self._spawn(self._invite(conversation_id, event_version(signal.headers), self._not_told(user_id, signal)))
        self._feeds.hear(conversation_id, signal)
        if joined is not None and (live := self._feeds.get(conversation_id)) is not None:
            # The conversation itself puts its sessions out when it comes to such an event: now it will come.
            live.expect(event_version(signal.headers))

    def _hear_signal(self, user_id: str, user: _User, kind: str, signal: Signal) -> None:
        if kind == STATUS:  # what the user chose, for all their sessions
            self.presence.hear_own(user_id, signal)
        elif signal.headers.get(subjects.SENDER) == user_id:
            return
        for session in tuple(user.sessions):
            if session.placed:
                session.push_signal(signal.data)

    def _hear_own(self, user: _User, signal: Signal) -> None:
        version = event_version(signal.headers)
        user.stirred += 1
        if signal.headers[subjects.TYPE] == DeviceRevoked.TOPIC:
            self._hear_revoked(user, signal)
        if user.version is not None:
            if version <= user.version:
                return
            if version > user.version + 1:
                for session in tuple(user.sessions):
                    session.close(CloseCode.POSITION_LOST, "one of your own events was missed")
                return
            user.version = version
        frame = own_frame(signal)
        if frame is not None:
            sequence = int(signal.headers[subjects.NATS_SEQUENCE])
            for session in tuple(user.sessions):
                if session.placed:
                    session.push_own(frame, sequence)

    @staticmethod
    def _hear_revoked(user: _User, signal: Signal) -> None:
        """Whatever has been read of it by now: a session may have come in a moment before."""
        device_id, revoked_at = revoked_device(signal)
        for session in tuple(user.sessions):
            if session.device.id == device_id and session.device.came_before(revoked_at):
                session.close(CloseCode.REVOKED, "this device was revoked")

    def _not_told(self, user_id: str, signal: Signal) -> list[Session]:
        """Those of a user's sessions whose position is before an event of a conversation."""
        conversation_id = int(subjects.aggregate_id(signal.headers[subjects.NATS_SUBJECT]))
        partition = partition_of(slot_of(conversation_id), self._partitions)
        sequence = int(signal.headers[subjects.NATS_SEQUENCE])
        return [s for s in self._sessions_of(user_id) if not s.position.covers(partition, sequence)]

    def _invite_soon(self, user_id: str, membership: Membership) -> None:
        self._spawn(self._invite(membership.conversation_id, membership.version + 1, self._sessions_of(user_id)))

    async def _invite(self, conversation_id: int, joined_version: int, sessions: list[Session]) -> None:
        """Attach sessions to a conversation that their user was put into by an event. It is pushed to them even if the
        user is out of it again by now: the conversation says so when it comes to that."""
        before = self._inviting.get(conversation_id)
        self._inviting[conversation_id] = now = asyncio.current_task()
        try:
            await self.tail.caught_up()
            counted = await self._push.counted(conversation_id)
            if before is not None:
                await asyncio.wait([before])  # of two memberships the earlier first
            for session in sessions:
                await self._feeds.enter(session, Membership(conversation_id, joined_version - 1, *counted))
        except Unavailable as error:
            log_.warning("could not attach a user", conversation_id=conversation_id, error=repr(error))
            for session in sessions:
                session.close(CloseCode.POSITION_LOST, "a new conversation could not be read")
        finally:
            if self._inviting.get(conversation_id) is now:
                del self._inviting[conversation_id]

    def _sessions_of(self, user_id: str) -> list[Session]:
        """Those that may be pushed to; the others are about to read what they are in."""
        user = self._users.get(user_id)
        return [session for session in user.sessions if session.placed] if user is not None else []

    # -- a session's end ------------------------------------------------------------------------------------

    def _on_close(self, session: Session, code: CloseCode | None) -> None:
        SESSIONS.labels(session.outlet.door).dec()
        if code is not None:
            CLOSED.labels(int(code)).inc()
        self._trail.closed(session, code)
        self.presence.disconnected(session)
        self.typing.disconnected(session)
        del self._sessions[session]
        user = self._users[session.user_id]
        del user.sessions[session]
        if not user.sessions:
            del self._users[session.user_id]
            self._spawn(user.listening.close())

    def _on_loss(self, reason: str) -> None:
        """Nobody knows what was missed: sessions are told, and conversations look for it."""
        log_.warning("push may have lost events; sessions are to resume", reason=reason, sessions=len(self._sessions))
        self._feeds.settle(self._feeds)
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
        works = (self._audit.run(self.limits.audit_s), self.presence.run(), self._witness.run())
        lasting = [self._spawn(work) for work in works]
        ping_s = self.limits.ping_s
        tick_s = min(TICK_S, ping_s / 4)
        try:
            while True:
                await asyncio.sleep(tick_s)
                await tick_all(list(self._sessions), self._loop.time(), ping_s, tick_s)
                self._feeds.close_idle()
        finally:
            await self.drain(0)
            for task in lasting:
                task.cancel()
            await self._stop()

    async def _stop(self) -> None:
        self._feeds.close()
        await self.tail.close()
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
