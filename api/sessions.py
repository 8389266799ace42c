"""A session: one connection of one user, WebSocket or SSE, and what waits to be written to it.

Nothing here waits. A session that cannot take a push is closed with a code that says "reconnect and resume", and
loses only what it will then ask for; it delays no other.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from api.frames import EventFrame, Frame
from api.position import Position
from api.push_metrics import DROPPED
from streams.cursor import Cursor

TICKED_MAX: Final = 256  # sessions in one turn of the loop: 10,000 that are all due for a ping would stop it for 0.1 s
SILENT_PINGS: Final = 3  # a client silent for so many times `ping_s` is gone


class CloseCode(IntEnum):
    """Why a session ended. Below 3500: reconnect and resume. From 3500: do not reconnect unchanged."""

    DRAINING = 3001
    TOO_SLOW = 3008
    SILENT = 3009  # the client was not heard for three times `ping_s`
    POSITION_LOST = 3010
    CROWDED = 3011  # more come, or are here, than this gateway can hold
    BAD_TOKEN = 3500
    REVOKED = 3501  # the device was
    PROTOCOL_ERROR = 3502
    FRAME_TOO_LARGE = 3503
    TOO_MANY_SESSIONS = 3504


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of sessions.

    Attributes:
        per_user: sessions a user may have on one gateway; one more is refused with 3504.
        in_all: sessions of one gateway; one more is refused with 3011. Each is an open file, and about 12 KiB.
        buffer_bytes: unsent output at which a session is closed with 3008. A few times the largest frame.
        ping_s: silence of the server's after which it says that it is there.
        audit_s: how often what was pushed is compared with what can be read: a push that was lost, and that no later
            one shows to be missing, is noticed within this time.
        cursor_s: how long after a push a client is told its new cursor, at the latest.
    """

    per_user: int = 20
    in_all: int = 15_000
    buffer_bytes: int = 1 << 20
    ping_s: float = 25
    audit_s: float = 5
    cursor_s: float = 5


class Outlet(Protocol):
    """The connection under a session, of one door or the other.

    Attributes:
        door: its name, for metrics.
    """

    door: str

    @property
    def heard_s(self) -> float:
        """Loop time at which the client was last heard; infinite for one that never speaks."""
        ...

    def encoded(self, frame: Frame, position: Position | None) -> bytes:
        """A push's bytes on this connection. `position`: where the client then is, if the push moved it."""
        ...

    def told(self, position: Position) -> bytes:
        """The bytes that tell the client its cursor, empty where every push does."""
        ...

    def alive(self) -> bytes:
        """The bytes that say that the server is there."""
        ...

    def try_write(self, data: bytes, limit_bytes: int) -> bool:
        """Write, unless more than `limit_bytes` would then wait for the client. Never waits."""
        ...

    def end(self, code: int, reason: str = "") -> None:
        """Close, once."""
        ...


class Attachment(Protocol):
    """A conversation that pushes to a session."""

    def detach(self, session: "Session") -> None:
        """Push to it no more."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The installation a session says it is of. Another user's device of the same id is another device.

    Attributes:
        token_issued_at: when the token it came with was made, Unix seconds; `None` if that does not say.
    """

    id: str | None = None
    kind: str = "other"
    token_issued_at: float | None = None

    def came_before(self, moment_s: float) -> bool:
        """Whether it came with a token from before a moment, as far as that can be told."""
        return self.token_issued_at is None or self.token_issued_at <= moment_s


@dataclass(frozen=True, slots=True)
class Began:
    """How a session began.

    Attributes:
        at_s: when, Unix seconds.
        base: what is stored after it is pushed.
        held: the cursor that was resumed from, and between which and `base` all was pushed; `None` if none was.
    """

    at_s: float
    base: Cursor
    held: Cursor | None


class Session:
    """Made by `Gateway.admit`. Closed exactly once, by `close`.

    Args:
        device: the installation it is of, if it said so.
        expires_s: loop time at which its token ends.
        limits: `buffer_bytes` of unsent output and it is too slow.

    Attributes:
        began: how, since it is connected.
        conversations: that push to it, by id.
        left: the version of the event that put the user out of a conversation, for those it was put out of.
        placed: whether it has a position: from then on it may be pushed to.
        position: how far it has been pushed to.
    """

    position: Position

    def __init__(
        self,
        user_id: str,
        outlet: Outlet,
        flusher: "Flusher",
        *,
        device: DeviceInfo,
        expires_s: float,
        limits: SessionLimits,
        on_close: Callable[["Session", CloseCode | None], None],
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.user_id = user_id
        self.outlet = outlet
        self.device = device
        self.expires_s = expires_s
        self.began: Began | None = None
        self.conversations: dict[int, Attachment] = {}
        self.left: dict[int, int] = {}
        self.closed = False
        self.placed = False
        self.sent_s = 0.0
        self._flusher = flusher
        self._limits = limits
        self._told_s = 0.0
        self._on_close = on_close
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._started = False

    @property
    def device_kind(self) -> str:
        """Of the installation it is of."""
        return self.device.kind

    @property
    def started(self) -> bool:
        """Whether it is connected."""
        return self._started

    def place(self, position: Position) -> None:
        """Say where the session stands, before the first push."""
        self.position = position
        self.placed = True

    def push(self, frame: EventFrame) -> None:
        """Have an event of a conversation written at the end of this turn of the loop."""
        self.position.pushed(frame.conversation_id, frame.version)
        self.write(self.outlet.encoded(frame, self.position))

    def push_own(self, frame: Frame, sequence: int) -> None:
        """Have one of the user's own events written, which stands at a sequence of the user's partition."""
        self.position.pushed_own(sequence)
        self.write(self.outlet.encoded(frame, self.position))

    def push_signal(self, payload: bytes) -> None:
        """Have the JSON of a signal written. It moves nothing."""
        self.write(self.outlet.encoded(Frame("signal", payload), None))

    def write(self, data: bytes) -> None:
        """Have whole frames written at the end of this turn of the loop, in one write with all others of it."""
        if self.closed:
            return
        if not self._pending and self._started:
            self._flusher.add(self)
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > self._limits.buffer_bytes:
            self.close(CloseCode.TOO_SLOW, "more was pushed than the connection takes")

    def start(self, first: bytes) -> None:
        """Write `first`, then all that was pushed so far, and from now on what comes."""
        if self.closed:
            return
        self._started = True
        self._pending.insert(0, first)
        self._pending_bytes += len(first)
        self._flusher.add(self)

    def flush(self, now_s: float) -> bool:
        """Write what waits; whether the session is still open. For the flusher."""
        if self.closed or not self._pending:
            return not self.closed
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        self._pending = []
        self._pending_bytes = 0
        self.sent_s = now_s
        if not self.outlet.try_write(data, self._limits.buffer_bytes):
            self.close(CloseCode.TOO_SLOW, "the connection does not take what is pushed")
        return not self.closed

    def tick(self, now_s: float, ping_s: float, tick_s: float) -> None:
        """Look at the clock: an ended token, a client not heard, a silence of ours. Called every `tick_s`."""
        if self.expires_s <= now_s:
            self.close(CloseCode.BAD_TOKEN, "the token has expired")
        elif now_s - self.outlet.heard_s > SILENT_PINGS * ping_s:
            self.close(CloseCode.SILENT, f"nothing was heard for {SILENT_PINGS * ping_s:g} s")
        elif not self._started:
            return
        elif not self.position.told and now_s + tick_s > self._told_s + self._limits.cursor_s:
            self._told_s = now_s
            self.tell()
        elif now_s + tick_s > self.sent_s + ping_s:
            self.write(self.outlet.alive())

    def tell(self) -> None:
        """Have the client told its cursor, after all that was pushed."""
        self.position.told = True
        if data := self.outlet.told(self.position):
            self.write(data)

    def close(self, code: CloseCode | None, reason: str = "") -> None:
        """End the session; what is not written yet is written, unless it was too slow.

        Args:
            code: what the client is told; `None` when it is gone already.
        """
        if self.closed:
            return
        if code is not None and code is not CloseCode.TOO_SLOW and self._started:
            if not self.position.told:
                self.tell()  # so that it is resumed from here
            if not self.flush(self.sent_s):
                return  # it was too slow for that, and is closed
        self.closed = True
        if code is CloseCode.TOO_SLOW:
            DROPPED.labels("slow").inc(len(self._pending))
        self._pending.clear()
        for conversation in list(self.conversations.values()):
            conversation.detach(self)
        self.conversations.clear()
        self._on_close(self, code)
        if code is not None:
            self.outlet.end(code, reason)


class Flusher:
    """Writes, at the end of a turn of the loop, what that turn pushed: one callback a turn, one write a session."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Session] = []

    def add(self, session: Session) -> None:
        """A session has something to write."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(session)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        now_s = self._loop.time()
        for session in dirty:
            session.flush(now_s)


async def tick_all(sessions: Sequence[Session], now_s: float, ping_s: float, tick_s: float) -> None:
    """Have sessions look at the clock, not so many at a time that all else waits for it."""
    for start in range(0, len(sessions), TICKED_MAX):
        for session in sessions[start : start + TICKED_MAX]:
            session.tick(now_s, ping_s, tick_s)
        await asyncio.sleep(0)
