"""The audit: every few seconds, what was pushed is held against what can be read.

A push can be lost without anybody noticing: a leader of the log that dies between storing an event and republishing
it, a fan-out that is down. The next event of the conversation shows the hole; the last one has none after it. So the
audit asks for the newest version of all that is heard here, and has read what is missing. What it has found whole
becomes the base of the sessions' cursors (`api.position`).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Protocol

import structlog

from api.feeds import Feeds
from api.push_metrics import AUDITED
from api.sessions import CloseCode, Session
from api.tail import Tail
from domain.errors import Unavailable
from projections.pages import Membership, Positions
from projections.push import PushQueries

FILL_S: Final = 2.0  # what is missing is read within this time, or is left to the next audit
POLL_S: Final = 0.02

log_ = structlog.get_logger(__name__)


class AuditedUser(Protocol):
    """A connected user.

    Attributes:
        version: of the newest own event that was pushed; `None` while the first session is connecting.
        sessions: of theirs, here.
    """

    version: int | None

    @property
    def sessions(self) -> Collection[Session]: ...


class Audit:
    """Of one gateway.

    Args:
        users: those connected now, by id.
        invite: attaches a user's sessions to a conversation.
    """

    def __init__(
        self,
        feeds: Feeds,
        queries: PushQueries,
        tail: Tail,
        *,
        users: Callable[[], Mapping[str, AuditedUser]],
        invite: Callable[[str, Membership], object],
    ) -> None:
        self._feeds = feeds
        self._queries = queries
        self._tail = tail
        self._users = users
        self._invite = invite
        self._since: Positions | None = None  # up to here everything was found pushed, but for `_again`
        self._again: set[int] = set()
        self._suspects: dict[str, int] = {}  # versions of own events that were not heard when they could be read

    async def run(self, every_s: float) -> None:
        """Audit until cancelled. An outage is logged and waited for."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.once()
            except Unavailable as error:
                log_.warning("could not compare what was pushed", error=repr(error))

    async def once(self) -> None:
        """One audit.

        Raises:
            Unavailable: the log or the read models cannot be reached; nothing is concluded.
        """
        for user in self._users().values():
            for session in user.sessions:
                if session.placed:
                    session.position.mark()
        reached = await self._tail.caught_up()
        since = self._since or Positions((0,) * len(reached.conversations), (0,) * len(reached.users))
        users = dict(self._users())
        candidates = {session for user in users.values() for session in user.sessions}
        positions, versions = await self._queries.newest_versions(
            list(self._feeds), since=since.conversations, again=list(self._again)
        )
        # After that: who came in later than `positions` is found by the next audit.
        behind = await self._look_for_invitations(users, since)
        self._feeds.expect(versions)
        missing = await self._filled(versions)
        for conversation_id in missing:
            live = self._feeds.get(conversation_id)
            behind |= live.behind if live is not None else set()
        self._check_own(users, await self._queries.user_versions(list(users)))
        for session in candidates - behind:
            if session.started and not session.closed:
                session.position.advance(positions.cursor(session.user_id))
        self._since, self._again = positions, {*missing, *(id_ for session in behind for id_ in session.conversations)}
        AUDITED.inc()

    async def _look_for_invitations(self, users: Mapping[str, AuditedUser], since: Positions) -> set[Session]:
        """Attach sessions to conversations that nobody told them of; those sessions."""
        behind: set[Session] = set()
        for user_id, membership in await self._queries.joined(list(users), since=since.conversations):
            missing = [s for s in users[user_id].sessions if membership.conversation_id not in s.conversations]
            if missing:
                self._invite(user_id, membership)
                behind.update(missing)
        return behind

    async def _filled(self, versions: Iterable[int]) -> list[int]:
        """Wait a moment for what is missing to be read; the conversations in which it was not."""
        deadline_s = asyncio.get_running_loop().time() + FILL_S
        missing = list(versions)
        while missing := [id_ for id_ in missing if (live := self._feeds.get(id_)) is not None and live.behind]:
            if asyncio.get_running_loop().time() > deadline_s:
                break
            await asyncio.sleep(POLL_S)
        return missing

    def _check_own(self, users: Mapping[str, AuditedUser], versions: dict[str, int]) -> None:
        """A user's own events have no line of their own here: who missed one is told to resume. What is missing for
        the first time may be on its way; what was missing at the audit before is lost."""
        suspects, self._suspects = self._suspects, {}
        for user_id, user in users.items():
            if user.version is None:
                continue
            if suspects.get(user_id, 0) > user.version:
                for session in list(user.sessions):
                    session.close(CloseCode.POSITION_LOST, "one of your own events was missed")
            elif versions.get(user_id, 0) > user.version:
                self._suspects[user_id] = versions[user_id]
