"""What the doors refuse by themselves, and how every refusal is told: one place for statuses, problems and headers.

ApiError                    refused at the door; the domain's refusals are `domain.errors.DomainError`
├── Unauthenticated         401  no token, or one that is not believed
│   └── TokenExpired        401
├── MethodNotAllowed        405
├── TooLarge                413
├── UnsupportedMediaType    415
├── StatementRefused        422  with `clickhouse_code`
└── RateLimited             429  with `retry_after`
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from starlette.responses import Response

from domain.errors import DomainError


class ApiError(Exception):
    """A refusal of the API's own. `code` is part of the public contract and never changes its meaning.

    Args:
        detail: one plain sentence for the person who reads it; no secrets.
        fields: what else the client is told, by name.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with it."""
        return {}


class Unauthenticated(ApiError):
    """`token_given` tells apart, for the client's library, no token and a bad one (RFC 6750)."""

    code = "unauthenticated"

    def __init__(self, detail: str, *, token_given: bool = True) -> None:
        super().__init__(detail)
        self._token_given = token_given

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"' if self._token_given else "Bearer"}


class TokenExpired(Unauthenticated):
    code = "token_expired"


class MethodNotAllowed(ApiError):
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path answers {allowed}")
        self._allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": self._allowed}


class TooLarge(ApiError):
    code = "too_large"

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}  # whatever is still to come of the body is not read


class UnsupportedMediaType(ApiError):
    code = "unsupported_media_type"


class StatementRefused(ApiError):
    """A statement that ClickHouse does not take, or could not finish within its limits. The same again is no better."""

    code = "invalid"


class RateLimited(ApiError):
    """Args: retry_after_s: whole seconds after which to come again."""

    code = "rate_limited"
    retryable = True

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail, retry_after=retry_after_s)

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.fields["retry_after"])}


INTERNAL: Final = "internal"
STATUSES: Final[Mapping[str, tuple[int, str]]] = {
    "unauthenticated": (401, "Not authenticated"),
    "token_expired": (401, "The token has expired"),
    "forbidden": (403, "Not allowed"),
    "revoked": (403, "This device was revoked"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "conflict": (409, "Conflict"),
    "too_large": (413, "Too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "invalid": (422, "Not valid"),
    "rate_limited": (429, "Too many requests"),
    INTERNAL: (500, "Something went wrong here"),
    "unavailable": (503, "Not available now"),
}

PROBLEM_JSON: Final = "application/problem+json"


def error_fields(error: Exception) -> dict[str, Any]:
    """A refusal as a WebSocket `error`: `code`, `message`, `retryable`, and its own fields.

    Of an exception that is no refusal nothing is told but `internal`; whoever caught it logs it.
    """
    if isinstance(error, DomainError):
        fields = {} if error.field is None else {"field": error.field}
        return {"code": error.code, "message": error.detail, "retryable": error.retryable, **fields}
    if isinstance(error, ApiError):
        return {"code": error.code, "message": error.detail, "retryable": error.retryable, **error.fields}
    return {"code": INTERNAL, "message": "the server could not do this; its log says why", "retryable": False}


def problem(error: Exception, **more: Any) -> Response:
    """A refusal as an RFC 9457 problem.

    Args:
        more: further fields of the document.
    """
    fields = error_fields(error)
    code = fields.pop("code")
    status, title = STATUSES[code]
    document = {
        "type": f"urn:riverrun:error:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": fields.pop("message"),
        **fields,
        **more,
    }
    headers = error.headers if isinstance(error, ApiError) else None
    return Response(msgspec.json.encode(document), status, headers, media_type=PROBLEM_JSON)
