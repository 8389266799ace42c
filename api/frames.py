"""The only author of pushed bytes: each event is encoded once a process, whoever and however many it is for.

A frame is a whole WebSocket frame, header included: server frames are not masked, so one object serves every client.
Frames of one session may be joined into one write.
"""

from functools import cached_property
from typing import Any, Final

import msgspec

from domain.events import ConversationCreated, MemberRemoved
from projections.pages import StoredEvent
from streams import subjects
from streams.codec import decode_parts
from streams.ports import Signal
from streams.public import PublicEvent, to_public

_encode = msgspec.json.Encoder().encode
_decode_data = msgspec.json.Decoder(dict[str, Any]).decode

_TEXT: Final = 0x81  # a final frame, of text


def text_frame(payload: bytes) -> bytes:
    """A WebSocket frame of one text, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65_536:
        return bytes((_TEXT, 126, size >> 8, size & 0xFF)) + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


ALIVE: Final = text_frame(b"{}")  # what a server says that has been silent
ALIVE_SSE: Final = b": alive\n\n"


class EventFrame:
    """One event of one conversation, encoded.

    Attributes:
        payload: `{"event": {…}}`.
        removed_user_id: who is no member any more because of it, if it says so.
    """

    def __init__(self, version: int, payload: bytes, removed_user_id: str | None) -> None:
        self.version = version
        self.payload = payload
        self.removed_user_id = removed_user_id
        self.websocket = text_frame(payload)

    @cached_property
    def sse(self) -> bytes:
        """The `event:` and `data:` lines of a server-sent event; JSON has no line ends in it."""
        return sse_lines("event", self.payload)


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
    event = decode_parts(signal.headers[subjects.NATS_SUBJECT], signal.headers, signal.data)
    public = to_public(event)
    if public is None:
        raise ValueError(f"{event.TOPIC} is not public")
    removed = event.user_id if isinstance(event, MemberRemoved) else None
    return EventFrame(event.originator_version, _payload(public), removed)


def stored_frame(event: StoredEvent) -> EventFrame:
    """The same bytes as `live_frame`, from the read model."""
    removed = _decode_data(event.data)["user_id"] if event.type == MemberRemoved.TOPIC else None
    return EventFrame(event.version, _payload(event), removed)


def _payload(event: PublicEvent | StoredEvent) -> bytes:
    return b'{"event":%b}' % _encode(event)


def answer_frame(request_id: bytes, answer: object) -> bytes:
    """The frame of a request's result. `request_id` is the client's own JSON of it."""
    return text_frame(b'{"id":%b,"ok":%b}' % (request_id, _encode(answer)))


def error_frame(request_id: bytes, fields: dict[str, Any]) -> bytes:
    """The frame of a request's refusal: code, message and what goes with the code."""
    return text_frame(b'{"id":%b,"error":%b}' % (request_id, _encode(fields)))


def joins(signal: Signal) -> bool | None:
    """What a signal about a user says of them: put in (true), put out (false), or neither (`None`)."""
    kind = signal.headers.get(subjects.TYPE)
    if kind in _JOINING:
        return True
    return False if kind == MemberRemoved.TOPIC else None


_JOINING: Final = (ConversationCreated.TOPIC, "member.added")
