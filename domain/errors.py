"""The errors a decision can end in. Each has a stable code; the API maps codes to statuses in one place.

DomainError
├── Invalid       what was asked can never be done as it stands (names the field)
├── Forbidden     known, but not allowed to this actor
├── NotFound      does not exist, or the actor may not know that it does
├── Conflict      contradicts what was decided before
├── Revoked       the device was revoked; only a newer token lets it in again
└── Unavailable   could not be decided now; nothing was acked; may be sent again
"""

from typing import ClassVar


class DomainError(Exception):
    """A refusal. `code` is part of the public contract and never changes its meaning.

    Args:
        detail: one plain sentence for the person who reads it; no secrets, no other user's data.
        field: the path of the offending input (`body.text`), where there is one.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class Invalid(DomainError):
    code = "invalid"


class Forbidden(DomainError):
    code = "forbidden"


class NotFound(DomainError):
    code = "not_found"


class Conflict(DomainError):
    code = "conflict"


class Revoked(DomainError):
    code = "revoked"


class Unavailable(DomainError):
    """Nothing was acked. The same `client_msg_id` may be sent again, whatever happened to the first."""

    code = "unavailable"
    retryable = True


BY_CODE: dict[str, type[DomainError]] = {
    error.code: error for error in (Invalid, Forbidden, NotFound, Conflict, Revoked, Unavailable)
}
