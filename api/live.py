"""One conversation as this gateway hears it: its events in order, without a gap or a double, to the sessions here.

Versions decide. An event goes out when it is the next; a hole, whatever made it, is filled from the read model, and
what cannot be filled in time ends the sessions concerned with `POSITION_LOST`. Each session has its place on the
one line of versions: on it (`attached`), ahead of it because it read further than we have heard, or behind it and
catching up.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import structlog

from api.frames import EventFrame, live_frame, stored_frame
from api.push_metrics import DELIVERIES, DROPPED, FILLS
from api.recent_events import RecentEvents
from api.sessions import CloseCode, Session
from api.trail import Trail
from domain.errors import DomainError, Unavailable
from projections.pages import EventsPage
from streams import subjects
from streams.codec import event_version
from streams.ports import Signal

EARLY_MAX: Final = 512  # frames that wait behind a hole; what does not fit is read from the read model
PAGE: Final = 100
PATIENCE_S: Final = 2.0  # for a page to be readable
RETRY_S: Final = 0.1

log_ = structlog.get_logger(__name__)


class EventReader(Protocol):
    """Of `projections.queries.Queries`: unauthorised reads, for who is known to be a member."""

    async def events_after(self, conversation_id: int, *, after: int, limit: int, min_version: int = 0) -> EventsPage:
        """Every public event after a version, in order. Raises `Unavailable`."""
        ...


class LiveConversation:
    """Not for threads. Its owner feeds it signals and closes it when it is `idle`.

    Args:
        spawn: runs a coroutine in the background, owned by the gateway.
        on_idle: called when the last session has left.
        on_size: called when the number of members has changed.
        recent: what the gateway's conversations have pushed; shared.
        trail: is told of what is pushed.

    Attributes:
        size: how many members the conversation has, as of the newest that is known here.
    """

    def __init__(
        self,
        conversation_id: int,
        reader: EventReader,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        on_idle: Callable[["LiveConversation"], None],
        on_size: Callable[["LiveConversation"], None],
        recent: RecentEvents,
        trail: Trail,
    ) -> None:
        self.id = conversation_id
        self.size = 0
        self._reader = reader
        self._spawn = spawn
        self._on_idle = on_idle
        self._on_size = on_size
        self._recent = recent
        self._trail = trail
        self._sized = 0  # the version that `size` is of
        self._attached: set[Session] = set()
        self._ahead: dict[Session, int] = {}
        self._catching: dict[Session, asyncio.Task[None]] = {}
        self._rejoining: dict[Session, int] = {}  # versions at which sessions that are here are known to be members
        self._last: int | None = None  # the version up to which the line goes
        self._known = 0  # the newest version known to exist
        self._early: dict[int, EventFrame] = {}
        self._filling: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no session is here."""
        return not (self._attached or self._ahead or self._catching)

    @property
    def behind(self) -> set[Session]:
        """The sessions that lack something that is known to exist; all of them while there is a hole."""
        if self._last is not None and self._last < self._known:
            return {*self._attached, *self._ahead, *self._catching}
        return set(self._catching)

    def sized(self, size: int, version: int) -> None:
        """The conversation had so many members at a version."""
        if version >= self._sized:
            self.size, self._sized = size, version

    # -- sessions -------------------------------------------------------------------------------------------

    def attach(self, session: Session, after: int) -> None:
        """Push every event after a version to a session; nothing if it is here, or has been put out since.

        The session's user is a member as of that version; the log says when that ends.
        """
        if session.closed or session.left.get(self.id, -1) > after:
            return
        if session.conversations.get(self.id) is self:
            # It may be about to come to its removal, after which it was put in again: see `_put_out`.
            self._rejoining[session] = max(after, self._rejoining.get(session, 0))
            return
        session.conversations[self.id] = self
        if self._last is None or (self.idle and after > self._last):
            self._begin(after)
        if after == self._last:
            self._attached.add(session)
        elif after > self._line:
            self._ahead[session] = after
            self.expect(after)
        elif (place := self._give_recent(session, after)) is not None and place < self._line:
            self._catching[session] = self._spawn(self._catch_up(session, place))
        elif place is not None:
            self._attached.add(session)
        self.expect(self._known)  # what was learnt of while nobody was here

    def detach(self, session: Session) -> None:
        """See `api.sessions.Attachment.detach`."""
        self._attached.discard(session)
        self._ahead.pop(session, None)
        self._rejoining.pop(session, None)
        catching = self._catching.pop(session, None)
        if catching is not None:
            catching.cancel()
        session.conversations.pop(self.id, None)
        if self.idle:
            self._on_idle(self)

    @property
    def _line(self) -> int:
        assert self._last is not None  # since the first `attach`
        return self._last

    def _begin(self, after: int) -> None:
        """Draw the line at a version; what was heard before is sorted onto it."""
        self._last = after
        self._known = max(self._known, after)
        self._early = {version: frame for version, frame in self._early.items() if version > after}
        self._advance()
        self.expect(self._known)

    # -- events ---------------------------------------------------------------------------------------------

    def signal(self, payload: bytes, sender_id: str) -> None:
        """Push a signal to whoever is here, save its sender."""
        for session in [*self._attached, *self._ahead, *self._catching]:
            if session.user_id != sender_id:
                session.push_signal(payload)

    def hear(self, signal: Signal) -> None:
        """An event of this conversation, as it was stored; perhaps not the next, perhaps again."""
        version = event_version(signal.headers)
        if self._last is not None and version <= self._last:
            return
        if self.idle and self._last is not None:
            # Nobody is here: only the place is kept, and whoever comes reads from the read model.
            self._last = self._known = version
            self._early.clear()
            return
        try:
            frame = live_frame(signal)
        except Exception as error:  # noqa: BLE001  # an event that cannot be read is a hole like any other
            DROPPED.labels("unreadable").inc()
            log_.error(
                "event not pushed",
                conversation_id=self.id,
                version=version,
                correlation_id=signal.headers.get(subjects.CORRELATION),
                error=repr(error),
            )
            self.expect(version)
            return
        if version - 1 == self._last:
            self._deliver(frame)
            self._advance()
            return
        if len(self._early) < EARLY_MAX:
            self._early[version] = frame
        else:
            DROPPED.labels("early").inc()
        if self._last is not None:
            self.expect(version)

    def expect(self, version: int) -> None:
        """A version is known to exist: if it is not heard, it is read."""
        self._known = max(self._known, version)
        if self._last is not None and self._known > self._last and self._filling is None:
            self._filling = self._spawn(self._fill())

    def _advance(self) -> None:
        """Deliver what waited behind a hole that is none any more."""
        while self._early and (frame := self._early.get(self._line + 1)) is not None:
            self._deliver(frame)
        if self._early:
            self.expect(max(self._early))

    def _deliver(self, frame: EventFrame) -> None:
        self._last = frame.version
        self._early.pop(frame.version, None)
        self._known = max(self._known, frame.version)
        self._recent.add(frame)
        if frame.growth and frame.version > self._sized:
            self.size, self._sized = self.size + frame.growth, frame.version
            self._on_size(self)
        sessions = tuple(self._attached)  # a push may close a session, which then leaves
        for session in sessions:
            session.push(frame)
        self._trail.pushed(frame, len(sessions))
        if frame.removed_user_id is not None:
            for session in [session for session in self._attached if session.user_id == frame.removed_user_id]:
                self._put_out(session, frame.version)
        if self._ahead:
            for session, place in list(self._ahead.items()):
                if place < frame.version and self._give(session, frame):
                    del self._ahead[session]
                    self._attached.add(session)

    def _give(self, session: Session, frame: EventFrame) -> bool:
        """Push one event to one session; false when that put it out or it is gone."""
        DELIVERIES.inc()
        session.push(frame)
        if frame.removed_user_id == session.user_id:
            self._put_out(session, frame.version)
            return False
        return session.conversations.get(self.id) is self

    def _put_out(self, session: Session, version: int) -> None:
        """Push nothing more to a session, unless its user is known to be in again."""
        rejoined = self._rejoining.get(session, -1)
        session.left[self.id] = version
        self.detach(session)
        if rejoined >= version:
            self.attach(session, rejoined)

    # -- what was missed ------------------------------------------------------------------------------------

    def _give_recent(self, session: Session, place: int) -> int | None:
        """Push what follows a place and is still in memory; the new place, `None` when put out."""
        while place < self._line and (frame := self._recent.get(self.id, place + 1)) is not None:
            if not self._give(session, frame):
                return None
            place = frame.version
        return place

    async def _catch_up(self, session: Session, after: int) -> None:
        """Bring one session to the line, from the read model and then from memory."""
        place: int | None = after
        try:
            while place is not None and place < self._line:
                FILLS.labels("session").inc()
                for frame in await self._read(place, min_version=self._line):
                    if not self._give(session, frame):
                        return
                    place = frame.version
                place = self._give_recent(session, place)
        except DomainError as error:
            log_.warning("session could not catch up", conversation_id=self.id, after=place, error=repr(error))
            session.close(CloseCode.POSITION_LOST, "what was missed could not be read")
            return
        if place is None:
            return
        del self._catching[session]
        if place == self._line:
            self._attached.add(session)
        else:
            self._ahead[session] = place

    async def _fill(self) -> None:
        """Read what the line misses. Live events that come meanwhile wait, or go out if they are the next."""
        try:
            while self._line < self._known and not self.idle:
                FILLS.labels("conversation").inc()
                hole_end = min(self._early) - 1 if self._early else self._known
                for frame in await self._read(self._line, min_version=hole_end):
                    if frame.version == self._line + 1:
                        self._deliver(frame)
                self._advance()
        except DomainError as error:
            log_.warning("hole in a conversation", conversation_id=self.id, after=self._last, error=repr(error))
            self.lose("events were missed and could not be read")
        finally:
            self._filling = None

    async def _read(self, after: int, *, min_version: int) -> list[EventFrame]:
        """The next page after a version, without a hole.

        Raises:
            Unavailable: it could not be read within `PATIENCE_S`, or the read model has a hole there.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + PATIENCE_S
        while True:
            try:
                page = await self._reader.events_after(self.id, after=after, limit=PAGE, min_version=min_version)
                break
            except Unavailable:
                if clock() >= deadline_s:
                    raise
                await asyncio.sleep(RETRY_S)
        if [event.version for event in page.events] != list(range(after + 1, after + 1 + len(page.events))):
            raise Unavailable("the read model has a hole")
        if not page.events:
            raise Unavailable("the read model lacks what it said it has")
        return [stored_frame(event) for event in page.events]

    def lose(self, reason: str) -> None:
        """Close every session here: nobody knows what they missed. Whoever comes next draws a new line."""
        self._last = None
        self._early.clear()
        for session in [*self._attached, *self._ahead, *self._catching]:
            session.close(CloseCode.POSITION_LOST, reason)
