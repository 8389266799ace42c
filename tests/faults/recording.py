"""What clients did and were given, written down as it happens: one JSON object a line, in files of one folder.

Memory stays bounded however long a run is, and a run can be checked again later (`python -m tests.faults.check`). A
line is written when its outcome is known; a run that dies leaves what was known by then.
"""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeVar

import msgspec

from domain.events import Event, MessagePosted
from streams.codec import decode
from streams.ports import Delivery
from streams.public import to_public

ATTEMPTS: Final = "attempts.ndjson"
DELIVERED: Final = "delivered.ndjson"
ACCOUNTS: Final = "accounts.ndjson"
LOG: Final = "log.ndjson"
DIGEST_BYTES: Final = 8

Outcome = Literal["acked", "refused", "unknown"]

T = TypeVar("T")


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try to post one message, and what came of it. Seconds are of the machine's monotonic clock.

    Attributes:
        session: that it was sent in; attempts of a session are sent, and to be decided, in the order of `number`.
        intended_s: when it was due, which is when the load's plan says and not when there was time for it.
        text: digest of what was posted.
        outcome: `refused` says that it had no effect; `unknown` that it may have had one, or may have it yet.
        code: of a refusal, or why nothing is known.
    """

    client_msg_id: str
    sender: str
    conversation: str
    session: str
    number: int
    intended_s: float
    sent_s: float
    ended_s: float
    text: str
    outcome: Outcome
    code: str = ""
    seq: int = 0
    version: int = 0
    message_id: str = ""
    duplicate: bool = False

    @property
    def message(self) -> "MessageKey":
        """What all attempts at the same message share."""
        return (self.conversation, self.sender, self.client_msg_id)


MessageKey = tuple[str, str, str]  # conversation, sender, client_msg_id


class Delivered(msgspec.Struct, frozen=True):
    """An event that a client was given: pushed, or pulled.

    Attributes:
        digest: of the event's JSON.
    """

    client: str
    conversation: str
    version: int
    digest: str


class Logged(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of a conversation as the log has it.

    Attributes:
        digest: of the JSON that clients are to be given.
        text: digest of the message's text; this and what stands before it are of messages only.
    """

    conversation: str
    version: int
    digest: str
    seq: int = 0
    message_id: str = ""
    sender: str = ""
    client_msg_id: str = ""
    text: str = ""

    @property
    def message(self) -> MessageKey:
        """As `Attempt.message`."""
        return (self.conversation, self.sender, self.client_msg_id)


def digest_of(data: bytes) -> str:
    """The digest that recordings keep instead of contents."""
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def logged(event: Event) -> Logged | None:
    """An event of the log as the checker takes it; `None` for what no client is given."""
    public = to_public(event)
    if public is None:
        return None
    id_, version, digest = public.conversation_id, public.version, digest_of(_encode(public))
    if not isinstance(event, MessagePosted):
        return Logged(id_, version, digest)
    return Logged(
        id_,
        version,
        digest,
        seq=event.seq,
        message_id=str(event.message_id),
        sender=event.actor_id,
        client_msg_id=event.client_msg_id,
        text=digest_of(event.body["text"].encode()),
    )


class Recorder:
    """Writes a recording. Close it before it is read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files: dict[str, BinaryIO] = {}

    def write(self, name: str, line: Any) -> None:
        """Write one line to one of the files. Nothing waits for the disk: it is not this machine that is to fail."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = (self.folder / name).open("ab")
        file.write(_encode(line) + b"\n")

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()


def read(folder: Path, name: str, kind: type[T]) -> Iterator[T]:
    """The lines of one of the files; none where there is no such file."""
    decoder = msgspec.json.Decoder(kind)
    path = folder / name
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            yield decoder.decode(line)


def read_log(folder: Path) -> Iterator[Event]:
    """The events of a recorded log that can be decoded, in its order."""
    for delivery in read(folder, LOG, Delivery):
        try:
            yield decode(delivery)
        except Exception:  # noqa: BLE001  # poison, which `riverrun verify` reports
            continue


_encode = msgspec.json.Encoder().encode
