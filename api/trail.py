"""The trail: what this gateway remembers of its latest pushes and of sessions that ended, to say later who got what.

One record an event, however many sessions it went to, and one a session that has ended: both in rings, so memory is
bounded, and what is older is not known any more. A session that is open says itself how far it was pushed to.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from api.frames import EventFrame
from api.position import Position
from api.push_metrics import DELIVERIES, EVENTS, PUSH_SECONDS
from api.sessions import Began, CloseCode, DeviceInfo, Session

PUSHES_MAX: Final = 20_000  # events; about 300 bytes each
ENDED_MAX: Final = 2_000  # sessions; about 1 KiB each


@dataclass(slots=True)
class _Turn:
    """What one turn of the loop pushed: it was written together, at the turn's end."""

    written_s: float = 0.0
    stored_s: list[float] = field(default_factory=list)
    deliveries: int = 0


class Push(NamedTuple):
    """One event, as it was pushed to the sessions that were up to date then."""

    conversation_id: int
    version: int
    sessions: int
    turn: _Turn

    @property
    def written_s(self) -> float:
        """When it was written to their connections, Unix seconds; 0 until it is."""
        return self.turn.written_s


class Ended(NamedTuple):
    """A session that has ended: what is kept of it. `code` is `None` when the client went away by itself."""

    id: str
    user_id: str
    door: str
    device: DeviceInfo
    began: Began | None
    position: Position | None
    left: dict[int, int]
    at_s: float
    code: CloseCode | None


class Trail:
    """One object a gateway. Not for threads.

    Args:
        clock: Unix seconds.
    """

    def __init__(
        self, *, pushes_max: int = PUSHES_MAX, ended_max: int = ENDED_MAX, clock: Callable[[], float] = time.time
    ) -> None:
        self._pushes: deque[Push] = deque(maxlen=pushes_max)
        self._ended: deque[Ended] = deque(maxlen=ended_max)
        self._clock = clock
        self._began_s = clock()
        self._turn: _Turn | None = None
        self._loop = asyncio.get_running_loop()

    # -- on the gateway's way: nothing here waits -----------------------------------------------------------

    def pushed(self, frame: EventFrame, sessions: int) -> None:
        """An event was pushed to so many sessions. Called after that: what they write goes before what is noted."""
        turn = self._turn
        if turn is None:
            turn = self._turn = _Turn()
            self._loop.call_soon(self._written, turn)
        turn.stored_s.append(frame.stored_s)
        turn.deliveries += sessions
        self._pushes.append(Push(frame.conversation_id, frame.version, sessions, turn))

    def closed(self, session: Session, code: CloseCode | None) -> None:
        """A session has ended. Its connection is not kept."""
        position = session.position if session.placed else None
        kept = (session.began, position, session.left, self._clock(), code)
        self._ended.append(Ended(session.id, session.user_id, session.outlet.door, session.device, *kept))

    def _written(self, turn: _Turn) -> None:
        self._turn = None
        turn.written_s = now_s = self._clock()
        for stored_s in turn.stored_s:
            PUSH_SECONDS.observe(max(0.0, now_s - stored_s))
        EVENTS.inc(len(turn.stored_s))
        DELIVERIES.inc(turn.deliveries)
        turn.stored_s.clear()

    # -- what is remembered ---------------------------------------------------------------------------------

    def push(self, conversation_id: int, version: int) -> Push | None:
        """The record of an event, of its first push."""
        for push in self._pushes:
            if push.version == version and push.conversation_id == conversation_id:
                return push
        return None

    def ended(self, users: Iterable[str]) -> list[Ended]:
        """The sessions of users that have ended, oldest first."""
        wanted = set(users)
        return [ended for ended in self._ended if ended.user_id in wanted]

    @property
    def pushes_since_s(self) -> float:
        """From when on all pushes are remembered, Unix seconds."""
        return self._pushes[0].written_s if len(self._pushes) == self._pushes.maxlen else self._began_s

    @property
    def ended_since_s(self) -> float:
        """From when on all ends of sessions are remembered, Unix seconds."""
        return self._ended[0].at_s if len(self._ended) == self._ended.maxlen else self._began_s
