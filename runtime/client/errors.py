"""What a call to a server can end in.

ClientError
├── ApiError          the server answered, and refused
├── ConnectionLost    no answer: the request may have had its effect
└── SessionClosed     the WebSocket session ended, with the server's reason
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """The root of what a client raises."""

    retryable = False


class ApiError(ClientError):
    """A refusal, as problem+json or as a WebSocket `error`.

    Attributes:
        code: the protocol's stable word (`not_found`, `unavailable`, …).
        status: the HTTP status; 0 for a WebSocket request.
        fields: everything the server said, `field` and `retry_after` among it.
    """

    def __init__(self, code: str, detail: str, *, status: int, retryable: bool, fields: Mapping[str, Any]) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retryable = retryable
        self.fields = dict(fields)

    @classmethod
    def of(cls, answer: Any, *, status: int = 0) -> "ApiError":
        """The error of a problem document or of a WebSocket `error`, or of whatever came in their place."""
        fields = answer if isinstance(answer, dict) else {}
        detail = fields.get("detail") or fields.get("message") or fields.get("title") or f"HTTP {status}"
        # A proxy in front of a server that is away answers for it, without a problem document.
        away = status in (502, 503, 504)
        return cls(
            str(fields.get("code", "unavailable" if away else "unknown")),
            str(detail),
            status=status,
            retryable=bool(fields.get("retryable", away)),
            fields=fields,
        )


class ConnectionLost(ClientError):
    """The server could not be reached, or went away before it answered."""

    retryable = True


# Close codes of the protocol after which the same connect may succeed; 1001, 1006 and 1012 are those of a
# server or a network that went away.
RECONNECT_CODES = frozenset({1001, 1006, 1011, 1012, 1013, 3001, 3008, 3009, 3010, 3011})


class SessionClosed(ClientError):
    """The server, or the network, ended the session.

    Attributes:
        close_code: the WebSocket close code, 1006 when there was none.
        reconnect: whether to connect again unchanged and resume.
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f"closed {close_code}" + (f": {reason}" if reason else ""))
        self.close_code = close_code
        self.reason = reason
        self.reconnect = close_code in RECONNECT_CODES

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # a constant elsewhere, the code's here
        return self.reconnect
