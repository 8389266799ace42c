"""The shapes of requests and of the answers that are nobody else's: one set of types validates and documents.

Shapes only, decoded by `api.decoding`; what a text, a name or a user id may be is decided by the domain. Where the
schema says more than a type can (`extra_json_schema`), the domain is what enforces it.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from api.presence_view import WATCH_MAX, ChosenStatus
from commands.messages import MessageResult
from domain.conversations import NAME_MAX
from domain.devices import DEVICE_ID_MAX, DeviceKind
from domain.ids import USER_ID_MAX
from domain.members import MEMBERS_PER_COMMAND_MAX, Kind, Who
from domain.messages import CLIENT_MSG_ID_MAX, MENTIONS_MAX, TEXT_MAX
from projections.pages import Block, Device
from streams.public import Message

INT64_MAX: Final = (1 << 63) - 1
LIMIT_MAX: Final = 200
LIMIT_DEFAULT: Final = 50
SQL_MAX: Final = 100_000  # characters
SQL_PARAMETERS_MAX: Final = 100
SEARCH_MAX: Final = 200  # characters

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


class SearchQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages that contain a text: of all one's conversations, or of one."""

    q: Annotated[str, Meta(min_length=1, max_length=SEARCH_MAX, description="Found within words, letters' case aside.")]
    conversation_id: Id | None = None
    before: Annotated[str, Meta(description="Of the page before.")] | None = None
    limit: Limit = LIMIT_DEFAULT


class ExportQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """All messages after a seq."""

    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="The last seq the client has.")] = 0


At: TypeAlias = Annotated[
    datetime, Meta(tz=True, description="As it was at this time, with its zone: `2026-11-25T09:00:00Z`.")
]
AtVersion: TypeAlias = Annotated[int, Meta(ge=1, le=INT64_MAX, description="Of the conversation; not with `at`.")]


class PastConversationQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation as it was at a time or a version; a page of its members, by user id."""

    at: At | None = None
    version: AtVersion | None = None
    after: UserId | None = None
    limit: Limit = LIMIT_DEFAULT


class PastMembershipQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A membership as it was at a time or a version."""

    at: At | None = None
    version: AtVersion | None = None


class PastInboxQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """An inbox as it was at a time."""

    at: At
    limit: Limit = LIMIT_DEFAULT
    page: Annotated[str, Meta(max_length=64, description="The `page` of the page before.")] | None = None
    hidden: Annotated[Literal["true", "false"], Meta(description="Also those that were hidden.")] = "false"


class ExportEnd(Struct, frozen=True):
    """That was all: up to `last_seq`, read from these tiers."""

    last_seq: int
    tiers: list[str]


class ExportError(Struct, frozen=True):
    """It could not go on after `last_seq`; the same again with that as `after` goes on."""

    code: str
    message: str
    last_seq: int


class ExportLine(Struct, frozen=True, omit_defaults=True):
    """A line of an export: one of these."""

    message: Message | UnsetType = UNSET
    end: ExportEnd | UnsetType = UNSET
    error: ExportError | UnsetType = UNSET


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of events after a version."""

    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="The version the client has.")] = 0
    limit: Limit = LIMIT_DEFAULT
    min_version: MinVersion = 0


DeviceId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=DEVICE_ID_MAX, description="The client's own name for an installation of it.")
]
Cursor: TypeAlias = Annotated[str, Meta(description="Opaque; of an earlier answer. Any other text cannot be used.")]


class InboxQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of the inbox, the newest conversation first."""

    limit: Limit = LIMIT_DEFAULT
    page: Annotated[str, Meta(max_length=64, description="The `page` of the page before.")] | None = None
    hidden: Annotated[Literal["true", "false"], Meta(description="Those that are hidden, instead of the others.")] = (
        "false"
    )


class SyncQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What happened since a cursor; without one, since ever."""

    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many conversations at most.")] = LIMIT_DEFAULT
    events: Annotated[int, Meta(ge=0, le=LIMIT_MAX, description="How many events of each at most.")] = LIMIT_DEFAULT


class StreamQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream begins: of which device, and after which cursor (`Last-Event-ID` goes before it)."""

    device_id: DeviceId | None = None
    device_kind: DeviceKind = "other"
    cursor: Cursor | None = None


class MoveReadRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to which message the user has read."""

    seq: Annotated[int, Meta(ge=0, le=INT64_MAX)]


class ReadMarker(Struct, frozen=True):
    """How far the user has read a conversation; never less than before."""

    conversation_id: Id
    read_seq: int


class OwnSettingsChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's own settings of a conversation; what is not given stays. `muted_until`: RFC 3339; null: not muted."""

    muted_until: datetime | UnsetType | None = UNSET
    pinned: bool | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET


class ReadReceiptsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of read receipts, by user id."""

    after: UserId | None = None
    limit: Limit = LIMIT_DEFAULT


class ProfileChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change of one's profile; what is not given stays, null clears. `attributes` are replaced as a whole."""

    display_name: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    attributes: dict[str, str] | UnsetType = UNSET


class Devices(Struct, frozen=True):
    """All devices that were ever registered and are not forgotten, also the revoked ones."""

    devices: list[Device]


class Blocks(Struct, frozen=True):
    """Everybody the user has blocked."""

    blocks: list[Block]


class Blocked(Struct, frozen=True):
    """Whether a user is blocked now."""

    user_id: UserId
    blocked: bool


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
    clickhouse_code: int | UnsetType = UNSET


class SetPresenceRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A status to choose. `invisible`: others see `offline`."""

    status: ChosenStatus


SqlForm: TypeAlias = Literal["ndjson", "table", "csv", "parquet", "arrow"]


class SqlRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A statement. `parameters`: what `{name:Type}` in it stands for. `format`: of the answer, before `Accept`."""

    sql: Annotated[str, Meta(min_length=1, max_length=SQL_MAX)]
    parameters: Annotated[dict[str, str], Meta(max_length=SQL_PARAMETERS_MAX)] = {}
    format: SqlForm | UnsetType = UNSET


Watched: TypeAlias = Annotated[list[UserId], Meta(extra_json_schema={"maxItems": WATCH_MAX})]


class PresenceRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Users whose presence is asked for."""

    users: Watched
