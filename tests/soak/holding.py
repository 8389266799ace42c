"""What a client holds of its conversations: which events, by version, and a digest over them in that order.

Events are kept as spans without a hole: the first and the last version, and a digest chained over the JSON of each. A
hole begins a new span, whether events were lost or the user was out of the conversation meanwhile: the checker knows
from the log which it was.
"""

from enum import Enum
from hashlib import blake2b

import msgspec

DIGEST_BYTES = 8


class Arrival(Enum):
    """What a pushed event was."""

    NEW = "new"
    PULLED_BEFORE = "pulled before"
    DOUBLED = "doubled"
    DISORDERED = "disordered"


class Span(msgspec.Struct):
    """Events of one conversation without a hole."""

    first: int
    last: int
    digest: bytes


class Holding(msgspec.Struct):
    """What one client has of one conversation.

    Attributes:
        version: of the newest event it has; before the first one, the version after which it is given events.
        pushed: of the newest event it was pushed; less than `version` where it pulled more.
        is_member: whether its user is, as far as it has heard.
        last_seq: of the newest message.
        read_seq: up to where its user has read, as far as it was told.
    """

    version: int
    pushed: int
    spans: list[Span] = []
    is_member: bool = True
    last_seq: int = 0
    read_seq: int = 0

    @classmethod
    def after(cls, version: int) -> "Holding":
        """Nothing yet, of a conversation of which everything after a version is to come."""
        return cls(version, version)

    def push(self, version: int, event: bytes) -> Arrival:
        """Take an event that was pushed."""
        if version <= self.pushed:
            return Arrival.DOUBLED if self._has(version) else Arrival.DISORDERED
        self.pushed = version
        return Arrival.NEW if self.pull(version, event) else Arrival.PULLED_BEFORE

    def pull(self, version: int, event: bytes) -> bool:
        """Take an event that was pulled, unless it is here; whether it was new."""
        if version <= self.version:
            return False
        if self.spans and version == self.version + 1:
            span = self.spans[-1]
            span.last, span.digest = version, chained(span.digest, event)
        else:
            self.spans.append(Span(version, version, chained(b"", event)))
        self.version = version
        return True

    def resumed(self) -> None:
        """A session was told that this is here: what it pushes is newer."""
        self.pushed = self.version

    def _has(self, version: int) -> bool:
        # Also what was there before the first span: the client never lacked it.
        return not self.spans or version < self.spans[0].first or any(s.first <= version <= s.last for s in self.spans)


def chained(digest: bytes, event: bytes) -> bytes:
    """The digest of a span that was extended by one event."""
    return blake2b(digest + event, digest_size=DIGEST_BYTES).digest()


class Account(msgspec.Struct):
    """What one client has to show at the end.

    Attributes:
        holdings: by conversation.
        acked: of its messages: conversation, version and `client_msg_id`.
        doubled: events that it was pushed although it had been pushed them before.
        disordered: events that it was pushed after a later one.
    """

    client: str
    user_id: str
    holdings: dict[str, Holding] = {}
    acked: list[tuple[str, int, str]] = []
    doubled: int = 0
    disordered: int = 0
