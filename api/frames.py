"""The only author of pushed bytes: each event is encoded once a process, whoever and however many it is for.

A frame is a whole WebSocket frame, header included: server frames are not masked, so one object serves every client.
Frames of one session may be joined into one write.
"""

from datetime import datetime
from typing import Any, Final

import msgspec

from domain.events import ConversationCreated, DeviceRevoked, Event, MemberAdded, MemberRemoved
from projections.pages import StoredEvent
from streams import subjects
from streams.codec import decode_parts
from streams.ports import Signal
from streams.public import PublicEvent, UserEvent, to_own, to_public

_encode = msgspec.json.Encoder().encode
_decode_data = msgspec.json.Decoder(dict[str, Any]).decode

_OBJECT_BYTES: Final = 400  # of an event in memory, without its text
_TEXT: Final = 0x81  # a final frame, of text


def text_frame(payload: bytes) -> bytes:
    """A WebSocket frame of one text, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65_536:
        return bytes((_TEXT, 126, size >> 8, size & 0xFF)) + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


def payload_of(frame: bytes) -> bytes:
    """The text of a frame that `text_frame` made."""
    begin = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[begin:]


ALIVE: Final = text_frame(b"{}")  # what a server says that has been silent
ALIVE_SSE: Final = b": alive\n\n"


class Frame:
    """One push, encoded: `{"<kind>": …}`, as it goes to any number of sessions.

    Args:
        payload: a JSON text.
    """

    __slots__ = ("_sse", "kind", "websocket")

    def __init__(self, kind: str, payload: bytes) -> None:
        self.kind = kind
        self.websocket = text_frame(payload)
        self._sse = b""

    @property
    def sse(self) -> bytes:
        """The `event:` and `data:` lines of a server-sent event; JSON has no line ends in it. Made when needed."""
        if not self._sse:
            self._sse = sse_lines(self.kind, payload_of(self.websocket))
        return self._sse


class EventFrame(Frame):
    """One event of one conversation: `{"event": {…}}`.

    Attributes:
        removed_user_id: who is no member any more because of it, if it says so.
        growth: by how many members the conversation grew.
        stored_s: when it was stored, Unix seconds; where that is not known, when it was decided.
    """

    __slots__ = ("conversation_id", "growth", "removed_user_id", "stored_s", "version")

    def __init__(
        self,
        conversation_id: int,
        version: int,
        payload: bytes,
        removed_user_id: str | None,
        growth: int,
        *,
        stored_s: float,
    ) -> None:
        super().__init__("event", payload)
        self.conversation_id = conversation_id
        self.version = version
        self.removed_user_id = removed_user_id
        self.growth = growth
        self.stored_s = stored_s

    @property
    def size(self) -> int:
        """The memory it takes in bytes, both its forms counted, about."""
        return 2 * len(self.websocket) + _OBJECT_BYTES


def sse_lines(kind: str, payload: bytes) -> bytes:
    """A server-sent event without its id."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)


def live_frame(signal: Signal) -> EventFrame:
    """The frame of an event as the log republished it.

    Raises:
        ValueError: it has no public form.
        eventsourcing.persistence.MapperDeserialisationError, eventsourcing.utils.TopicError, KeyError:
            it is not an event of ours.
    """
    event = _event_of(signal)
    public = to_public(event)
    if public is None:
        raise ValueError(f"{event.TOPIC} is not public")
    removed, growth = None, 0
    match event:
        case MemberRemoved():
            removed, growth = event.user_id, -1
        case MemberAdded():
            growth = 1
        case ConversationCreated():
            growth = len(event.members)
    stored_at = signal.headers.get(subjects.NATS_TIME)
    stored_s = (event.timestamp if stored_at is None else datetime.fromisoformat(stored_at)).timestamp()
    return EventFrame(
        int(event.originator_id), event.originator_version, _payload(public), removed, growth, stored_s=stored_s
    )


def stored_frame(event: StoredEvent) -> EventFrame:
    """The same bytes as `live_frame`, from the read model."""
    removed, growth = None, 0
    match event.type:
        case MemberRemoved.TOPIC:
            removed, growth = _decode_data(event.data)["user_id"], -1
        case MemberAdded.TOPIC:
            growth = 1
        case ConversationCreated.TOPIC:
            growth = len(_decode_data(event.data)["members"])
    decided_s = datetime.fromisoformat(event.occurred_at).timestamp()
    return EventFrame(int(event.conversation_id), event.version, _payload(event), removed, growth, stored_s=decided_s)


def own_frame(signal: Signal) -> Frame | None:
    """The frame of one of a user's own events as the log republished it; `None` for what is internal.

    Raises: as `live_frame`, but for ValueError.
    """
    own = to_own(_event_of(signal))
    return None if own is None else Frame("event", _payload(own))


def revoked_device(signal: Signal) -> tuple[str, float]:
    """Which device a `device.revoked` is about, and when it was revoked, Unix seconds.

    Raises: as `own_frame`.
    """
    event = _event_of(signal)
    assert isinstance(event, DeviceRevoked)
    return event.device_id, event.timestamp.timestamp()


def own_state_frame(own: UserEvent) -> Frame:
    """The frame of one of a user's own events, rebuilt from what stands."""
    return Frame("event", _payload(own))


def cursor_frame(token: str) -> bytes:
    """The frame that tells a WebSocket client how far it has been pushed to."""
    return text_frame(b'{"cursor":"%b"}' % token.encode())


def _event_of(signal: Signal) -> Event:
    return decode_parts(signal.headers[subjects.NATS_SUBJECT], signal.headers, signal.data)


def _payload(event: PublicEvent | StoredEvent | UserEvent) -> bytes:
    return b'{"event":%b}' % _encode(event)


def answer_frame(request_id: bytes, answer: object) -> bytes:
    """The frame of a request's result. `request_id` is the client's own JSON of it."""
    return text_frame(b'{"id":%b,"ok":%b}' % (request_id, _encode(answer)))


def error_frame(request_id: bytes, fields: dict[str, Any]) -> bytes:
    """The frame of a request's refusal: code, message and what goes with the code."""
    return text_frame(b'{"id":%b,"error":%b}' % (request_id, _encode(fields)))


def joins(signal: Signal, user_id: str) -> bool | None:
    """What an event addressed to a user says of them: put in (true), put out (false), or neither (`None`).

    Raises: as `live_frame`.
    """
    if signal.headers.get(subjects.TYPE) not in _ABOUT_MEMBERS:
        return None
    match _event_of(signal):
        case ConversationCreated():
            return True
        case MemberAdded(user_id=about) if about == user_id:
            return True
        case MemberRemoved(user_id=about) if about == user_id:
            return False
    return None


_ABOUT_MEMBERS: Final = frozenset({ConversationCreated.TOPIC, MemberAdded.TOPIC, MemberRemoved.TOPIC})
