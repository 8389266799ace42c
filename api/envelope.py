"""What a WebSocket client may say: the envelope of a request, and the parameters of each method."""

import json
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from api.presence_view import ChosenStatus
from api.schema import (
    INT64_MAX,
    DeviceId,
    EventsQuery,
    Id,
    MessagesQuery,
    MoveReadRequest,
    PostMessageRequest,
    Watched,
)
from domain.devices import DeviceKind

VERSIONS_MAX: Final = 1_000  # conversations that a client was pushed something of since its cursor
ID_MAX: Final = (1 << 53) - 1  # what every JSON client can count to

_decode_request = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_pairs = json.JSONDecoder(object_pairs_hook=list).decode  # msgspec keeps the last of duplicate names


class ConnectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first request.

    Attributes:
        cursor: an earlier session's, an inbox's or a sync's: what was missed since is pushed first.
        versions: of conversations of which the client has more than the cursor says: by id, the version it has.
    """

    token: str | None = None
    device_id: DeviceId | None = None
    device_kind: DeviceKind = "other"
    cursor: str | None = None
    versions: Annotated[dict[Id, Annotated[int, Meta(ge=0, le=INT64_MAX)]], Meta(max_length=VERSIONS_MAX)] = {}


class Connected(msgspec.Struct, frozen=True):
    """The answer to it.

    Attributes:
        cursor: from which everything is pushed.
        recovered: that is the cursor the client came with, and what it missed comes first; else it has to sync.
    """

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


class ReadRequest(MoveReadRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST …/read`."""

    conversation_id: Id


class PingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that the client is there."""


class PresenceMethod(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A status to choose, users to watch no more, users to watch: each if given, in this order."""

    status: ChosenStatus | UnsetType = UNSET
    subscribe: Watched | UnsetType = UNSET
    unsubscribe: Watched | UnsetType = UNSET


class TypingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that the user is writing in a conversation, or has stopped."""

    conversation_id: Id
    active: bool


class Violation(Exception):
    """The client does not speak the protocol; the session ends with `PROTOCOL_ERROR` and this as the reason."""


def parsed(line: bytes) -> tuple[bytes, str, bytes]:
    """A request's id (the client's own JSON of it), method and parameters.

    Raises:
        Violation.
    """
    try:
        fields = {name: bytes(raw) for name, raw in _decode_request(line).items()}
        # A name that was given twice has left a colon in the line that is in none of the values that were kept.
        if line.count(b":") != len(fields) + sum([raw.count(b":") for raw in fields.values()]) and (
            len(_decode_pairs(line.decode())) != len(fields)
        ):
            raise Violation("a name is given twice in a request")
    except (ValueError, RecursionError):
        raise Violation("a request is a JSON object") from None
    request_id = fields.pop("id", b"")
    if not request_id.isdigit() or int(request_id) > ID_MAX:
        raise Violation(f"a request has an id, a whole number from 0 to {ID_MAX}")
    if len(fields) != 1:
        raise Violation("a request has one method")
    method, raw = next(iter(fields.items()))
    return request_id, method, raw
