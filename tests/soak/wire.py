"""What the soak's clients read of the protocol: only what they need, so that thousands fit beside their servers."""

import msgspec
from msgspec import Raw


class Line(msgspec.Struct):
    """One JSON object from the server: an answer (`id`), or a push; `{}` only says that it is there."""

    id: int = -1
    ok: Raw = Raw(b"")
    error: Raw = Raw(b"")
    event: Raw = Raw(b"")
    cursor: str = ""


class Refusal(msgspec.Struct):
    """Why a request was refused."""

    code: str
    retryable: bool = False


class Data(msgspec.Struct):
    """Of an event: a message's seq and sender, or whom a membership is about."""

    seq: int = 0
    sender_id: str = ""
    user_id: str = ""


class Event(msgspec.Struct):
    """An event. The user's own have no version."""

    type: str
    data: Data
    conversation_id: str = ""
    version: int = 0


class Connected(msgspec.Struct):
    """The answer to `connect`."""

    cursor: str
    recovered: bool


class Changed(msgspec.Struct):
    """A conversation in an answer to `sync`: one in which something happened, or one that was left."""

    conversation_id: str
    events: list[Raw]
    events_truncated: bool
    version: int = 0
    read_seq: int = 0


class Synced(msgspec.Struct):
    """The answer to `sync`."""

    conversations: list[Changed]
    left: list[Changed]
    cursor: str
    done: bool
    reset: bool


class Events(msgspec.Struct):
    """The answer to `events`."""

    events: list[Raw]
    has_more: bool


class Ack(msgspec.Struct):
    """The answer to `send`."""

    conversation_id: str
    seq: int
    version: int


line_of = msgspec.json.Decoder(Line).decode
event_of = msgspec.json.Decoder(Event).decode
