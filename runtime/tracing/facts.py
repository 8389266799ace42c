"""What is found out about one message: plain values, which become the timeline, the verdicts and the JSON."""

from dataclasses import dataclass, field
from datetime import datetime

from api.testimony import SessionTold, Testimony


@dataclass(frozen=True, slots=True)
class MessageFact:
    """The message, as the log has it. `body` only where it was asked for."""

    message_id: str
    conversation_id: str
    seq: int
    version: int
    sender_id: str
    client_msg_id: str
    correlation_id: str
    traceparent: str
    decided_at: datetime
    stored_at: datetime
    stream: str
    sequence: int
    append_id: str
    append_first: int
    append_last: int
    body: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectionFact:
    """A projection, and whether it has come to the message.

    Attributes:
        checkpoint: `None` where it has never run.
        behind: events from its checkpoint to the log's end.
        dead: why it could not apply the message, if it could not.
    """

    name: str
    checkpoint: int | None
    behind: int
    dead: str | None = None


@dataclass(frozen=True, slots=True)
class ReadModels:
    """What Postgres has of the message.

    Attributes:
        error: why Postgres could not be asked; then nothing else is known.
        is_stored, is_told: whether the message is in `messages` and in `changes`.
        members: how many there are now; `as_then`: and were when it was posted.
    """

    error: str | None = None
    projections: list[ProjectionFact] = field(default_factory=list)
    is_stored: bool = False
    is_told: bool = False
    kind: str | None = None
    members: int = 0
    as_then: bool = False


@dataclass(frozen=True, slots=True)
class HotFact:
    """What Valkey has: up to which sequence everything, and the conversation's newest seq if its head is there."""

    error: str | None = None
    position: int | None = None
    head_seq: int | None = None


@dataclass(frozen=True, slots=True)
class FanoutFact:
    """The fan-out.

    Attributes:
        way: `write`, `read`, or `write and read`; `None` where the number of members is not known.
        place: what it has acknowledged; `None` where it has none.
        behind: events from there to the log's end.
    """

    way: str | None
    place: int | None
    behind: int


@dataclass(frozen=True, slots=True)
class Stay:
    """A user's membership as of the message. `joined_at`, `left_at` go with the versions, as far as they are known.

    Attributes:
        is_member: whether they were one when it was posted; `None`: not known.
    """

    is_member: bool | None
    joined_version: int | None = None
    joined_at: datetime | None = None
    left_version: int | None = None
    left_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MemberFact:
    """A member, or the user who was asked for.

    Attributes:
        blocked_at: since when one of the two of a direct conversation takes nothing of the other, by whom (`blocker`).
        last_seen_at: as presence has it.
        sessions: with the gateways that hold or held them.
        verdict: one sentence: whether they saw it, and if not, why.
    """

    user_id: str
    stay: Stay
    read_seq: int = 0
    read_at: datetime | None = None
    muted: bool = False
    hidden: bool = False
    blocker: str | None = None
    blocked_at: datetime | None = None
    last_seen_at: datetime | None = None
    sessions: list[tuple[str, SessionTold]] = field(default_factory=list)
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Gateways:
    """What the gateways say.

    Attributes:
        missing: how many are alive and did not answer; `None` where Valkey does not say how many there are.
    """

    answers: list[Testimony] = field(default_factory=list)
    missing: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """All of it. `members`: those shown, of `members_total`."""

    message: MessageFact
    models: ReadModels
    hot: HotFact
    fanout: FanoutFact
    gateways: Gateways
    members: list[MemberFact]
    members_total: int
