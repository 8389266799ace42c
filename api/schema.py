r"""The shapes of requests and of the answers that are nobody else's: one set of types validates and documents.

`decode` is strict beyond JSON: unknown and duplicate names are refused, each by its name. Shapes only; what a
text, a name or a user id may be is decided by the domain. Where the schema says more than a type can
(`extra_json_schema`), the domain is what enforces it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from commands.messages import MessageResult
from domain.conversations import NAME_MAX
from domain.errors import Invalid
from domain.ids import USER_ID_MAX
from domain.members import MEMBERS_PER_COMMAND_MAX, Kind, Who
from domain.messages import CLIENT_MSG_ID_MAX, MENTIONS_MAX, TEXT_MAX

INT64_MAX: Final = (1 << 63) - 1
LIMIT_MAX: Final = 200
LIMIT_DEFAULT: Final = 50
QUOTED_MAX: Final = 100  # characters of the client's own that an error says back

Id: TypeAlias = Annotated[
    str, Meta(description="A 64-bit id as a decimal string.", extra_json_schema={"pattern": "^[1-9][0-9]{0,18}$"})
]
UserId: TypeAlias = Annotated[
    str,
    Meta(
        description="A user id of the host application.",
        extra_json_schema={
            "pattern": r"^[A-Za-z0-9_.:@|^\[\]{}\\`~-]+$",
            "minLength": 1,
            "maxLength": USER_ID_MAX,
        },
    ),
]
ClientId: TypeAlias = Annotated[
    str,
    Meta(
        description="The client's own id: the same again is the same request.",
        extra_json_schema={"pattern": "^[!-~]+$", "minLength": 1, "maxLength": CLIENT_MSG_ID_MAX},
    ),
]
Text: TypeAlias = Annotated[
    str,
    Meta(
        description=r"Counted after \r\n and \r became \n. Every other character stays as it came.",
        extra_json_schema={"pattern": "^[^\\u0000]*$", "minLength": 1, "maxLength": TEXT_MAX},
    ),
]
Name: TypeAlias = Annotated[
    str,
    Meta(
        description="Printable characters, not spaces only.",
        extra_json_schema={"minLength": 1, "maxLength": NAME_MAX},
    ),
]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many at most.")]
MinVersion: TypeAlias = Annotated[
    int,
    Meta(
        ge=0,
        le=INT64_MAX,
        description="Wait, for a moment, until what is read has this version; after it, `unavailable`.",
    ),
]


class TextBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A text. Later types of body add to this."""

    type: Literal["text"]
    text: Text


class PostMessageRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message to post."""

    client_msg_id: ClientId
    body: TextBody
    reply_to: Id | None = None
    mentions: Annotated[list[UserId], Meta(extra_json_schema={"maxItems": MENTIONS_MAX})] = []


class SettingsChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings to change; what is not given stays."""

    post: Who | UnsetType = UNSET
    invite: Who | UnsetType = UNSET

    def as_dict(self) -> dict[str, str]:
        """Those that were given."""
        return {name: value for name, value in (("post", self.post), ("invite", self.invite)) if value is not UNSET}


Members: TypeAlias = Annotated[list[UserId], Meta(extra_json_schema={"maxItems": MEMBERS_PER_COMMAND_MAX})]


class CreateConversationRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A conversation to open. The creator is a member of it, named or not."""

    kind: Kind
    members: Members
    name: Name | None = None
    settings: SettingsChange = SettingsChange()
    client_conversation_id: ClientId | None = None


class UpdateConversationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change of a conversation; what is not given stays."""

    name: Name | UnsetType = UNSET
    settings: SettingsChange = SettingsChange()


class ChangeMembersRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Members to add, to remove, and to give a role; all or nothing."""

    add: Members = []
    remove: Members = []
    roles: dict[UserId, Literal["admin", "member"]] = {}


class ConversationQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How to read a conversation."""

    min_version: MinVersion = 0


class MembersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of members, by user id."""

    after: UserId | None = None
    limit: Limit = LIMIT_DEFAULT
    min_version: MinVersion = 0


class MessagesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of messages: those before a seq or those after one; with neither, the newest."""

    before: Annotated[int, Meta(ge=1, le=INT64_MAX, description="Not together with `after`.")] | None = None
    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="Not together with `before`.")] | None = None
    limit: Limit = LIMIT_DEFAULT
    min_version: MinVersion = 0


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of events after a version."""

    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="The version the client has.")] = 0
    limit: Limit = LIMIT_DEFAULT
    min_version: MinVersion = 0


class MessageAck(Struct, frozen=True):
    """The message is in the log, for good, at `seq`. `duplicate`: it was already there."""

    message_id: Id
    conversation_id: Id
    seq: int
    version: int
    created_at: str
    duplicate: bool

    @classmethod
    def of(cls, result: MessageResult) -> "MessageAck":
        """The ack of a decided command."""
        return cls(
            result.message_id, result.conversation_id, result.seq, result.version, result.created_at, result.duplicate
        )


class Ticket(Struct, frozen=True):
    """Good for one connection, for `expires_in` seconds."""

    ticket: str
    expires_in: int


class Status(Struct, frozen=True):
    """How the process is."""

    status: str


class Problem(Struct, frozen=True):
    """An error (RFC 9457). `retryable`: the same request may succeed later. Further fields depend on `code`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    field: str | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET
    not_ready: dict[str, str] | UnsetType = UNSET


T = TypeVar("T")


def decode(raw: bytes, type_: type[T]) -> T:
    """The value that JSON stands for. About 4 µs for a message of 200 bytes.

    Raises:
        Invalid: not JSON, not UTF-8, a lone surrogate, an unknown or duplicate name, a wrong type. `field` is its path.
    """
    try:
        value: T = _decoder(cast("Hashable", type_))(raw)
        _refuse_duplicates(raw.decode())
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not JSON: {_malformation(raw, error)}") from None
    return value


def decode_query(pairs: list[tuple[str, str]], type_: type[T]) -> T:
    """The value of a query string's parameters, each given once at most.

    Raises:
        Invalid: an unknown or repeated parameter, a number that is none or out of bounds.
    """
    numbers = _number_fields(cast("Hashable", type_))
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise Invalid("given more than once", field=_quoted(name))
        # Digits only: `int` would also take signs, spaces and other scripts' digits.
        if name in numbers and not (len(text) <= 19 and text.isascii() and text.isdigit()):
            raise Invalid("a whole number is expected, of at most 63 bits", field=name)
        values[name] = int(text) if name in numbers else text
    try:
        return msgspec.convert(values, type_)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None


@cache
def _decoder(type_: Hashable) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(type_).decode


@cache
def _number_fields(type_: Hashable) -> frozenset[str]:
    return frozenset(name for name, property_ in properties(type_).items() if "integer" in str(property_))


def properties(type_: Any) -> Mapping[str, Any]:
    """The JSON schema of each field of a struct."""
    _, components = msgspec.json.schema_components([type_])
    found: Mapping[str, Any] = components[type_.__name__].get("properties", {})
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise Invalid("given more than once", field=_quoted(name))
    return value


# msgspec keeps the last of duplicate names and cannot be told to refuse. The second parser comes after it, so
# what it sees is already known to be JSON of a bounded depth.
_refuse_duplicates = json.JSONDecoder(object_pairs_hook=_unique).decode

_PATH = re.compile(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*)`)?", re.DOTALL)
_NAMED = re.compile(r"Object (?:contains|missing) (unknown|required) field `(.*)`", re.DOTALL)
_DETAILS = {"unknown": "there is no such field", "required": "this is required"}


def _invalid(message: str) -> Invalid:
    """msgspec's sentence as ours: `Expected `str`, got `int` - at `$.body.text``."""
    match = _PATH.fullmatch(message)
    detail, path = (match[1], match[2] or "") if match else (message, "")
    path = path.replace("[...]", "")
    if named := _NAMED.fullmatch(detail):
        detail = _DETAILS[named[1]]
        path = f"{path}.{named[2]}" if path else named[2]
    return Invalid(_quoted(detail.replace("`", "")), field=_quoted(path) if path else None)


def _malformation(raw: bytes, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return _quoted(str(error).removeprefix("JSON is malformed: "))
    return "a lone surrogate"  # Python's parser takes it, msgspec's does not


def _quoted(text: str) -> str:
    return text if len(text) <= QUOTED_MAX else text[:QUOTED_MAX] + "…"
