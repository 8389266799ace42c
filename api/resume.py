"""Resuming: what a session missed since a cursor, read in one snapshot and pushed before anything new.

All of it or nothing: a cursor that cannot be believed, or after which too much has happened, is not recovered, and the
client syncs.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from api.frames import EventFrame, Frame, own_state_frame, stored_frame
from api.position import Position
from api.push_metrics import RESUMED
from api.sessions import Session
from projections.pages import Membership, Missed
from projections.sync import SyncQueries
from streams.cursor import BadCursor, Cursor

EVENTS_MAX: Final = 1_000  # a client that missed more is better served by pages it asks for

log_ = structlog.get_logger(__name__)


class Resumed:
    """What was missed since a cursor that can be believed.

    Attributes:
        position, held: where the client was.
    """

    def __init__(
        self, position: Position, held: Cursor, missed: Missed, frames: list[EventFrame], own: list[Frame]
    ) -> None:
        self.position = position
        self.held = held
        self._missed = missed
        self._frames = frames
        self._own = own

    @property
    def base(self) -> Cursor:
        """Up to where it is all that was missed."""
        return self._missed.cursor

    @property
    def user_version(self) -> int:
        """Of the user's newest own event as of then."""
        return self._missed.user_version

    @property
    def memberships(self) -> list[Membership]:
        """The user's conversations, each with the version from which to push on."""
        return self._missed.memberships

    def push_to(self, session: Session) -> None:
        """Have it all pushed to a session that is placed at `position`, which then has the cursor of it all."""
        for frame in self._frames:
            session.push(frame)
        for own in self._own:
            session.push_own(own, 0)  # the position moves when all of it is pushed
        session.position.stand(self.base)
        session.tell()


class Resume:
    """Reads what sessions missed.

    Args:
        key: the deployment's secret for cursors.
        partitions: of the deployment.
        max_bytes: of missed events; more is not recovered, for it would not fit in a session's buffer.
    """

    def __init__(self, queries: SyncQueries, key: bytes, *, partitions: int, max_bytes: int) -> None:
        self._queries = queries
        self._key = key
        self._partitions = partitions
        self._max_bytes = max_bytes

    async def missed(self, user_id: str, token: str, versions: Mapping[int, int]) -> Resumed | None:
        """What a user's session missed; `None` when that cannot be told whole.

        Args:
            versions: of conversations of which the client has more than the token says.

        Raises:
            Unavailable: the read models cannot be reached.
        """
        resumed = await self._missed(user_id, token, versions)
        RESUMED.labels("recovered" if resumed is not None else "not").inc()
        return resumed

    async def _missed(self, user_id: str, token: str, versions: Mapping[int, int]) -> Resumed | None:
        try:
            told = Cursor.decode(token, self._key, user_id, partitions=self._partitions)
        except BadCursor as error:
            log_.info("a cursor could not be used", user_id=user_id, reason=str(error))
            return None
        ahead = dict(told.ahead)
        for conversation_id, version in versions.items():
            ahead[conversation_id] = max(version, ahead.get(conversation_id, 0))
        held = Cursor(told.positions, told.own, ahead)
        missed = await self._queries.missed(user_id, held, limit=EVENTS_MAX)
        if missed is None or not missed.cursor.reaches(held):
            return None
        frames = [stored_frame(event) for event in missed.events]
        if sum(len(frame.websocket) for frame in frames) > self._max_bytes:
            return None
        own_frames = [own_state_frame(own) for own in missed.own]
        return Resumed(Position(self._key, user_id, held), held, missed, frames, own_frames)
