"""Messages: what a text may be, and the receipt that makes a send repeatable."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from domain.errors import Invalid
from domain.events import MessagePosted
from domain.ids import check_user_id

TEXT_MAX = 8_192  # characters
MENTIONS_MAX = 50
CLIENT_MSG_ID_MAX = 64
_canonical = msgspec.json.Encoder(order="sorted").encode
_CLIENT_MSG_ID = re.compile(r"[!-~]{1,64}")


def normalised_text(text: str) -> str:
    r"""The text as it is stored: line ends become `\n`, every other character stays as it came.

    Raises:
        Invalid: empty, over 8,192 characters, or with a NUL or a lone surrogate.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not 1 <= len(text) <= TEXT_MAX:
        raise Invalid(f"a text has 1 to {TEXT_MAX:,} characters, not {len(text):,}", field="body.text")
    if "\x00" in text:
        raise Invalid("a text has no NUL", field="body.text")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise Invalid("a text has no lone surrogate", field="body.text")
    return text


def check_client_msg_id(client_msg_id: str, *, field: str = "client_msg_id") -> str:
    """The client's own id for a message or a conversation, when it is one.

    Raises:
        Invalid: it is not 1 to 64 printable ASCII characters without a space.
    """
    if not _CLIENT_MSG_ID.fullmatch(client_msg_id):
        raise Invalid("1 to 64 printable ASCII characters, no space", field=field)
    return client_msg_id


def checked_mentions(mentions: list[str]) -> list[str]:
    """The mentioned users, each once, in order. Whether they are members is not checked: they may just have left.

    Raises:
        Invalid: more than 50, or one that is not a user id.
    """
    if not mentions:
        return []
    if len(mentions) > MENTIONS_MAX:
        raise Invalid(f"at most {MENTIONS_MAX} mentions", field="mentions")
    return [check_user_id(user_id, field="mentions") for user_id in dict.fromkeys(mentions)]


def content_digest(body: dict[str, Any], reply_to: int | None, mentions: list[str]) -> bytes:
    """8 bytes that tell a retry (equal) from another message under the same `client_msg_id` (not equal)."""
    return hashlib.blake2b(_canonical([body, reply_to, mentions]), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the sender of a message was told: the same for every retry."""

    message_id: int
    seq: int
    version: int
    created_at: datetime
    digest: bytes

    @classmethod
    def of(cls, event: MessagePosted) -> "Receipt":
        """That of the message that an event posted."""
        return cls(
            message_id=event.message_id,
            seq=event.seq,
            version=event.originator_version,
            created_at=event.timestamp,
            digest=content_digest(event.body, event.reply_to, event.mentions),
        )
