"""The conversations that sessions of this gateway are in, and how each is heard.

A small conversation's events are addressed to its members and come through their subscriptions; a large one is listened
to itself. Between the two is a band of sizes in which both is done (`domain.fanout`), so a conversation that grows or
shrinks past it is never unheard, and what is heard twice is told by its version.

What was stored before a conversation was listened to is looked for once more (`settle`).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, Final

import structlog

from api.listening import Listener, Listening
from api.live import EventReader, LiveConversation
from api.push_metrics import CONVERSATIONS
from api.recent_events import RecentEvents
from api.sessions import Session
from api.tail import Tail
from api.trail import Trail
from domain.errors import Unavailable
from domain.fanout import reads
from projections.pages import Membership
from projections.push import PushQueries
from streams import subjects
from streams.ports import Signal

LINGER_S: Final = 30.0  # a conversation nobody is in is kept for so long: sessions come back
SETTLE_RETRY_S: Final = 0.5

log_ = structlog.get_logger(__name__)


class _Feed:
    """A conversation, and the subscription it is heard by if it is listened to itself."""

    __slots__ = ("listening", "live")

    def __init__(self, live: LiveConversation) -> None:
        self.live = live
        self.listening: Listening | None = None

    @property
    def stands(self) -> bool:
        return self.listening is None or self.listening.stands


class Feeds:
    """Not for threads; `spawn` runs its background work, owned by the gateway.

    Args:
        fanout_limit: members up to which the fan-out addresses them one by one.
    """

    def __init__(
        self,
        listener: Listener,
        reader: EventReader,
        queries: PushQueries,
        tail: Tail,
        trail: Trail,
        *,
        fanout_limit: int,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self._listener = listener
        self._reader = reader
        self._queries = queries
        self._tail = tail
        self._recent = RecentEvents()
        self._trail = trail
        self._fanout_limit = fanout_limit
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[int, _Feed] = {}
        self._idle: dict[int, float] = {}  # feeds without a session, since when, oldest first
        self._unsettled: set[int] = set()
        self._settling: asyncio.Task[None] | None = None
        self._closing = False

    def __iter__(self) -> Iterator[int]:
        return iter(self._feeds)

    def get(self, conversation_id: int) -> LiveConversation | None:
        """A conversation that sessions are in, or were in a moment ago."""
        feed = self._feeds.get(conversation_id)
        return None if feed is None else feed.live

    # -- sessions -------------------------------------------------------------------------------------------

    async def enter(self, session: Session, membership: Membership) -> None:
        """Push to a session what follows the version of a membership of its user.

        Raises:
            Unavailable: the conversation cannot be listened to.
        """
        feed = self._feeds.get(membership.conversation_id) or self._open(membership)
        feed.live.sized(membership.member_count, membership.counted_version)
        self._adjust(feed)
        if not feed.stands and feed.listening is not None:
            await feed.listening.ready()
        if session.closed:
            return
        self._idle.pop(feed.live.id, None)
        feed.live.attach(session, membership.version)
        if feed.live.idle:
            self._on_idle(feed.live)

    # -- what is heard --------------------------------------------------------------------------------------

    def hear(self, conversation_id: int, signal: Signal) -> None:
        """An event of a conversation, however it came. One of a conversation that nobody is in is nobody's."""
        feed = self._feeds.get(conversation_id)
        if feed is not None:
            feed.live.hear(signal)

    def _hear(self, live: LiveConversation, signal: Signal) -> None:
        if subjects.SIGNAL not in signal.headers:
            live.hear(signal)
        else:
            live.signal(signal.data, signal.headers.get(subjects.SENDER, ""))

    # -- listening ------------------------------------------------------------------------------------------

    def _open(self, membership: Membership) -> _Feed:
        live = LiveConversation(
            membership.conversation_id,
            self._reader,
            spawn=self._spawn,
            on_idle=self._on_idle,
            on_size=self._on_size,
            recent=self._recent,
            trail=self._trail,
        )
        feed = self._feeds[live.id] = _Feed(live)
        self._idle[live.id] = self._loop.time()
        CONVERSATIONS.inc()
        # An event may have been addressed to the user, or stored, since the membership was read.
        self.settle([live.id])
        return feed

    def _on_size(self, live: LiveConversation) -> None:
        if (feed := self._feeds.get(live.id)) is not None:
            self._adjust(feed)

    def _adjust(self, feed: _Feed) -> None:
        """Listen to a conversation that has become large; no more to one that has become small."""
        wanted = reads(feed.live.size, self._fanout_limit)
        if wanted and feed.listening is None:
            subject = subjects.live_conversation(str(feed.live.id))
            feed.listening = listening = self._listener.listen(subject, partial(self._hear, feed.live))
            listening.opening.add_done_callback(lambda _: self._on_opened(feed, listening))
        elif not wanted and feed.listening is not None:
            self._spawn(feed.listening.close())
            feed.listening = None

    def _on_opened(self, feed: _Feed, listening: Listening) -> None:
        if feed.listening is not listening:
            return
        if not listening.stands:
            if self._feeds.get(feed.live.id) is feed:
                self._close(feed)
        elif not self._closing:
            self.settle([feed.live.id])

    def _on_idle(self, live: LiveConversation) -> None:
        if live.id in self._feeds:
            self._idle[live.id] = self._loop.time()

    def close_idle(self) -> None:
        """Forget conversations that nobody has been in for a while."""
        before_s = self._loop.time() - LINGER_S
        while self._idle:
            conversation_id = next(iter(self._idle))
            if self._idle[conversation_id] > before_s:
                return
            self._close(self._feeds[conversation_id])

    def _close(self, feed: _Feed) -> None:
        del self._feeds[feed.live.id]
        self._idle.pop(feed.live.id, None)
        CONVERSATIONS.dec()
        if feed.listening is not None:
            self._spawn(feed.listening.close())
        feed.live.lose("this conversation cannot be listened to")

    def close(self) -> None:
        """Forget all; sessions are closed before."""
        self._closing = True
        for feed in list(self._feeds.values()):
            self._close(feed)
        if self._settling is not None:
            self._settling.cancel()

    # -- what was stored before it was listened to ----------------------------------------------------------

    def settle(self, conversation_ids: Iterable[int]) -> None:
        """Look once more for what was stored before these conversations were heard."""
        if self._closing:
            return
        self._unsettled.update(conversation_ids)
        if self._settling is None and self._unsettled:
            self._settling = self._spawn(self._settle_all())

    async def _settle_all(self) -> None:
        try:
            while self._unsettled:
                batch = list(self._unsettled)
                self._unsettled.clear()
                try:
                    positions = await self._tail.caught_up()
                    start = [0] * len(positions.conversations)
                    _, versions = await self._queries.newest_versions(batch, since=start)
                except Unavailable as error:
                    log_.warning("could not look for missed events; trying again", error=repr(error))
                    self._unsettled.update(batch)
                    await asyncio.sleep(SETTLE_RETRY_S)
                    continue
                self.expect(versions)
        finally:
            self._settling = None

    def expect(self, versions: dict[int, int]) -> None:
        """These versions exist: what is not pushed yet is read."""
        for conversation_id, version in versions.items():
            if conversation_id in self._feeds:
                self._feeds[conversation_id].live.expect(version)
