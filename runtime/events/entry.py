"""An event as it is shown: as one line, as an object of JSON, or whole. What cannot be decoded is shown as that."""

import base64
import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from domain import events
from domain.events import Event
from runtime.terminal import printable
from streams import subjects
from streams.codec import decided_ms, decode
from streams.ports import Delivery
from streams.public import rfc3339

TEXT_MAX: Final = 100  # characters of a line's last column
_IDS: Final = frozenset({"conversation_id", "message_id", "reply_to"})  # 64 bits: strings, as everywhere
_COMMON: Final = frozenset({field.name for field in dataclasses.fields(Event)} | {"originator_topic"})


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its place.

    Attributes:
        event: `None` where it cannot be decoded; then `error` says why.
    """

    delivery: Delivery
    event: Event | None
    error: str | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> "Entry":
        """Decode a delivery."""
        try:
            return cls(delivery, decode(delivery))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is to be shown
            return cls(delivery, None, f"{type(error).__name__}: {' '.join(str(error).split())}")

    @property
    def place(self) -> str:
        """`CONV-0:17`."""
        return f"{self.delivery.stream}:{self.delivery.sequence}"

    @property
    def type(self) -> str:
        """The type that the event says it has; "" where it does not."""
        return self.delivery.headers.get(subjects.TYPE, "")

    @property
    def version(self) -> int | None:
        """The version that the event says it has."""
        return version_of(self.delivery)

    @property
    def conversation_id(self) -> str | None:
        """The conversation it is of, or about."""
        id_ = subjects.aggregate_id(self.delivery.subject)
        if subjects.family_of(self.delivery.subject) == subjects.CONV and id_.isdecimal():
            return id_
        about = getattr(self.event, "conversation_id", None)
        return None if about is None else str(about)

    @property
    def user_id(self) -> str | None:
        """The user it is of, or about."""
        if subjects.family_of(self.delivery.subject) == subjects.USER:
            return subjects.aggregate_id(self.delivery.subject)
        return getattr(self.event, "user_id", None)

    @property
    def text(self) -> str | None:
        """The text of a message."""
        if not isinstance(self.event, events.MessagePosted):
            return None
        text = self.event.body.get("text")
        return text if isinstance(text, str) else None

    def data(self) -> dict[str, Any] | None:
        """The event's own fields, in JSON's types."""
        if self.event is None:
            return None
        own = {name: value for name, value in vars(self.event).items() if name not in _COMMON}
        return {name: _plain(name, value) for name, value in own.items()}

    def as_dict(self) -> dict[str, Any]:
        """All of it. The names are always there and stay what they are. Of what cannot be decoded the body is given."""
        delivery = self.delivery
        return {
            "stream": delivery.stream,
            "sequence": delivery.sequence,
            "subject": delivery.subject,
            "stored_at": delivery.stored_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "decided_at": rfc3339(_decided_at(delivery)),
            "type": self.type,
            "version": self.version,
            "seq": getattr(self.event, "seq", None),
            "conversation_id": self.conversation_id,
            "user_id": self.user_id,
            "actor_id": delivery.headers.get(subjects.ACTOR),
            "data": self.data(),
            "headers": dict(delivery.headers),
            "body_base64": None if self.error is None else base64.b64encode(delivery.data).decode(),
            "error": self.error,
        }

    def line(self) -> str:
        """The event on one line."""
        version, seq = self.version, getattr(self.event, "seq", None)
        numbers = " ".join(
            [*([f"v{version}"] if version else []), *([f"seq {seq}"] if seq is not None else [])],
        )
        about = self.conversation_id or self.user_id or subjects.aggregate_id(self.delivery.subject)
        columns = (
            f"{_decided_at(self.delivery):%Y-%m-%d %H:%M:%S.%f}"[:-3],
            f"{self.place:<12}",
            f"{self.type or '?':<20}",
            f"{about:<19}",
            f"{self.delivery.headers.get(subjects.ACTOR) or '-':<12}",
            f"{numbers:<12}",
            _shortened(self._said()),
        )
        return "  ".join(map(printable, columns)).rstrip()

    def whole(self) -> str:
        """The event on many lines."""
        shown = self.as_dict()
        facts = {
            "decided": shown["decided_at"],
            "stored": shown["stored_at"],
            "subject": shown["subject"],
            "conversation": shown["conversation_id"],
            "user": shown["user_id"],
            "version": shown["version"],
            "seq": shown["seq"],
            "actor": shown["actor_id"],
            **shown["headers"],
            "body": f"{len(self.delivery.data):,} bytes",
            "error": shown["error"],
        }
        lines = [f"{self.place}  {self.type or '?'}"]
        lines += [f"  {name:<14}  {printable(str(value))}" for name, value in facts.items() if value is not None]
        if self.event is not None:
            written = json.dumps(shown["data"], indent=2, ensure_ascii=False)
            lines += ["  " + printable(line) for line in written.split("\n")]
        else:
            lines.append(f"  {self.delivery.data!r}")
        return "\n".join(lines)

    def _said(self) -> str:
        if self.error is not None:
            return f"cannot be decoded: {self.error}"
        if self.text is not None:
            return json.dumps(self.text, ensure_ascii=False)
        data = self.data() or {}
        return " ".join(f"{name}={value}" for name, value in data.items() if value is not None and name != "seq")


def version_of(delivery: Delivery) -> int | None:
    """The version that an event says it has, from its headers alone."""
    text = delivery.headers.get(subjects.VERSION, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _decided_at(delivery: Delivery) -> datetime:
    try:
        return datetime.fromtimestamp(decided_ms(delivery) / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return delivery.stored_at  # a header that holds no time of any calendar


def _plain(name: str, value: Any) -> Any:
    if name in _IDS and isinstance(value, int):
        return str(value)
    return rfc3339(value) if isinstance(value, datetime) else msgspec.to_builtins(value)


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"
