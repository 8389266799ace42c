"""What a WebSocket client may say: the envelope of a request, and the parameters of each method."""

import json
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from api.schema import EventsQuery, Id, MessagesQuery, PostMessageRequest

ID_MAX: Final = (1 << 53) - 1  # what every JSON client can count to

_decode_request = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_pairs = json.JSONDecoder(object_pairs_hook=list).decode  # msgspec keeps the last of duplicate names


class ConnectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first request. `cursor`: an earlier session's."""

    token: str | None = None
    device_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    cursor: str | None = None

    def __post_init__(self) -> None:
        if self.device_id is not None and not self.device_id.isprintable():
            raise ValueError("device_id: 1 to 64 printable characters")


class Connected(msgspec.Struct, frozen=True):
    """The answer to it. `recovered`: everything since the client's cursor is being pushed; else it has to sync."""

    session_id: str
    user_id: str
    cursor: str
    recovered: bool
    ping_s: float


class SendRequest(PostMessageRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST …/messages`."""

    conversation_id: Id


class HistoryRequest(MessagesQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`GET …/messages`."""

    conversation_id: Id


class EventsRequest(EventsQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`GET …/events`."""

    conversation_id: Id


class PingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that the client is there."""


class Violation(Exception):
    """The client does not speak the protocol; the session ends with `PROTOCOL_ERROR` and this as the reason."""


def parsed(line: bytes) -> tuple[bytes, str, bytes]:
    """A request's id (the client's own JSON of it), method and parameters.

    Raises:
        Violation.
    """
    try:
        fields = _decode_request(line)
        pairs = _decode_pairs(line.decode())
    except (ValueError, RecursionError):
        raise Violation("a request is a JSON object") from None
    if len(pairs) != len(fields):
        raise Violation("a name is given twice in a request")
    raw_id = fields.pop("id", None)
    request_id = b"" if raw_id is None else bytes(raw_id)
    if not request_id.isdigit() or int(request_id) > ID_MAX:
        raise Violation(f"a request has an id, a whole number from 0 to {ID_MAX}")
    if len(fields) != 1:
        raise Violation("a request has one method")
    method, raw = next(iter(fields.items()))
    return request_id, method, bytes(raw)
