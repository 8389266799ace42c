"""What a gateway says when it is asked what became of one event: about its push, and about some users' sessions.

Whoever asks publishes a `PushQuestion` to all gateways and collects a `Testimony` of each. Nothing in it is a text of
a message.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
import structlog

from api.position import Position
from api.sessions import Began, Session
from api.trail import Trail
from domain.ids import partition_of, slot_of
from streams import subjects
from streams.cursor import Cursor
from streams.ports import Bus, BusError, Signal, Subscription

WAITING_MAX: Final = 16  # questions; one more is not answered, and who asked says so
SUBSCRIBE_AGAIN_S: Final = 1.0

log_ = structlog.get_logger(__name__)

# pushed: it went to the session's connection. resumed: likewise, with what the session had missed when it began.
# had: the client came with a cursor that has it. read: it was stored before the session began, so it was not pushed but
# is to be read. behind: it is not pushed yet. out: the user was out of the conversation by then, as far as the session
# was told. elsewhere: the session is not attached to the conversation. ended: it had ended by then. connecting: it has
# not begun.
Outcome: TypeAlias = Literal["pushed", "resumed", "had", "read", "behind", "out", "elsewhere", "ended", "connecting"]


class PushQuestion(msgspec.Struct, frozen=True):
    """What became of one event, in the sessions of these users?

    Attributes:
        reply: the subject to answer to.
        sequence: of the event in the stream of its partition.
    """

    reply: str
    conversation_id: int
    version: int
    sequence: int
    users: list[str]


class SessionTold(msgspec.Struct, frozen=True, kw_only=True):
    """A session, and the event. Times are Unix seconds.

    Attributes:
        recovered: whether it resumed an earlier one.
        ended_s, close_code: `None` while it is open; a code is `None` too when the client went away by itself.
    """

    session_id: str
    user_id: str
    door: str
    device_id: str | None
    device_kind: str
    began_s: float | None
    recovered: bool
    outcome: Outcome
    ended_s: float | None = None
    close_code: int | None = None


class Testimony(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway knows. Times are Unix seconds.

    Attributes:
        pushes_since_s, ended_since_s: from when on it remembers all pushes, and all ends of sessions.
        written_s: when the event was written to the sessions that were up to date; `None` if that is not remembered.
        written_sessions: how many they were.
        sessions: of the users that were asked about, oldest first.
    """

    gateway: str
    pushes_since_s: float
    ended_since_s: float
    written_s: float | None
    written_sessions: int
    sessions: list[SessionTold]


class _User(Protocol):
    @property
    def sessions(self) -> Iterable[Session]: ...


class Witness:
    """Answers while `run` runs.

    Args:
        name: of this gateway.
        users: those connected now, by id.
    """

    def __init__(self, bus: Bus, trail: Trail, *, name: str, users: Callable[[], Mapping[str, _User]]) -> None:
        self._bus = bus
        self._trail = trail
        self._name = name
        self._users = users
        self._asked: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)

    async def run(self) -> None:
        """Answer until cancelled."""
        subscription = await self._subscribe()
        try:
            while True:
                question = await self._asked.get()
                try:
                    asked = _decode(question)
                    await self._bus.publish(asked.reply, _encode(self.testify(asked)))
                except (msgspec.MsgspecError, BusError) as error:
                    log_.warning("a question about a push was not answered", error=repr(error))
        finally:
            await subscription.close()

    async def _subscribe(self) -> Subscription:
        while True:
            try:
                return await self._bus.subscribe(subjects.TRACE_PUSH, self._take)
            except BusError as error:
                log_.warning("questions about pushes are not heard yet", error=str(error))
                await asyncio.sleep(SUBSCRIBE_AGAIN_S)

    def _take(self, signal: Signal) -> None:
        if not self._asked.full():
            self._asked.put_nowait(signal.data)

    def testify(self, asked: PushQuestion) -> Testimony:
        """What this gateway knows of an event."""
        push = self._trail.push(asked.conversation_id, asked.version)
        users = self._users()
        ended = [
            SessionTold(
                session_id=gone.id,
                user_id=gone.user_id,
                door=gone.door,
                device_id=gone.device.id,
                device_kind=gone.device.kind,
                began_s=gone.began.at_s if gone.began else None,
                recovered=gone.began is not None and gone.began.held is not None,
                outcome=_outcome(asked, gone.began, gone.position, gone.left, attached=None),
                ended_s=gone.at_s,
                close_code=None if gone.code is None else int(gone.code),
            )
            for gone in self._trail.ended(asked.users)
        ]
        here = [s for user_id in asked.users if user_id in users for s in users[user_id].sessions]
        return Testimony(
            gateway=self._name,
            pushes_since_s=self._trail.pushes_since_s,
            ended_since_s=self._trail.ended_since_s,
            written_s=None if push is None else push.written_s,
            written_sessions=0 if push is None else push.sessions,
            sessions=[*ended, *(self._told(asked, session) for session in here)],
        )

    @staticmethod
    def _told(asked: PushQuestion, session: Session) -> SessionTold:
        position = session.position if session.placed else None
        attached = asked.conversation_id in session.conversations
        return SessionTold(
            session_id=session.id,
            user_id=session.user_id,
            door=session.outlet.door,
            device_id=session.device.id,
            device_kind=session.device.kind,
            began_s=session.began.at_s if session.began else None,
            recovered=session.began is not None and session.began.held is not None,
            outcome=_outcome(asked, session.began, position, session.left, attached=attached),
        )


def _outcome(
    asked: PushQuestion,
    began: Began | None,
    position: Position | None,
    left: Mapping[int, int],
    *,
    attached: bool | None,
) -> Outcome:
    """`attached`: to the conversation, now; `None` for a session that has ended."""
    if began is None or position is None:
        return "connecting"
    if position.newest(asked.conversation_id) >= asked.version and not _covers(began.base, asked):
        return "pushed"
    if not attached and left.get(asked.conversation_id, asked.version) < asked.version:
        return "out"
    if began.held is not None and _covers(began.held, asked):
        return "had"
    if _covers(began.base, asked):
        return "read" if began.held is None else "resumed"
    if position.covers(_partition(asked, began.base), asked.sequence):
        return "pushed"
    if attached is None:
        return "ended"
    return "behind" if attached else "elsewhere"


def _covers(cursor: Cursor, asked: PushQuestion) -> bool:
    """Whether whoever stands at a cursor has the event."""
    position = cursor.positions[_partition(asked, cursor)]
    return position >= asked.sequence or cursor.ahead.get(asked.conversation_id, 0) >= asked.version


def _partition(asked: PushQuestion, cursor: Cursor) -> int:
    return partition_of(slot_of(asked.conversation_id), len(cursor.positions))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PushQuestion).decode
