"""Typing: the signal that somebody is writing in a conversation. Rate-limited, never stored, expiring by itself.

It goes to the fan-out, which knows the members and brings it to their sessions.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from api.errors import RateLimited
from domain.errors import NotFound
from streams import subjects
from streams.ports import Bus

EXPIRES_S: Final = 6  # a client shows it for so long after the last one; it repeats it every few seconds
WINDOW_S: Final = 1.0
SESSION_MAX: Final = 10  # signals of a session in the window, in conversations that differ: one in each
TYPING: Final = "typing"

_encode = msgspec.json.Encoder().encode


class TypingSession(Protocol):
    """What typing asks of a session. Hashable by identity."""

    @property
    def user_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def conversations(self) -> Mapping[int, Any]:
        """Those that push to it, by id. `Any`: only their ids matter here."""
        ...


class Typing:
    """One object a gateway.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._lately: dict[TypingSession, deque[tuple[float, int]]] = {}  # what each session said in the window

    async def typing(self, session: TypingSession, conversation_id: int, *, active: bool) -> None:
        """Tell the other members that the session's user is writing, or has stopped. At most once to each.

        Raises:
            NotFound: the conversation does not push to this session.
            RateLimited: more than one a second in this conversation, or ten a second in all. Nothing was told.
        """
        if conversation_id not in session.conversations:
            raise NotFound("there is no such conversation")
        self._admit(session, conversation_id)
        signal = {
            "type": TYPING,
            "conversation_id": str(conversation_id),
            "user_id": session.user_id,
            "active": active,
            "expires_in_s": EXPIRES_S,
        }
        await self._bus.publish(
            subjects.signal_conversation(str(conversation_id)),
            _encode({"signal": signal}),
            {subjects.SIGNAL: TYPING, subjects.SENDER: session.user_id},
        )

    def disconnected(self, session: TypingSession) -> None:
        """Forget a session. Idempotent. What it said last expires at the clients."""
        self._lately.pop(session, None)

    def _admit(self, session: TypingSession, conversation_id: int) -> None:
        now_s = self._clock()
        lately = self._lately.setdefault(session, deque())
        while lately and lately[0][0] <= now_s - WINDOW_S:
            lately.popleft()
        if len(lately) >= SESSION_MAX or any(said == conversation_id for _, said in lately):
            raise RateLimited(
                f"typing is told once a second in a conversation, and {SESSION_MAX} times in all", retry_after_s=1
            )
        lately.append((now_s, conversation_id))
