"""What a verification found: for people a table, for programs one object."""

from dataclasses import dataclass, field
from typing import Any

SHOWN_MAX = 100  # differences named in a report; all are counted


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where log and read model do not agree, or where the log contradicts itself.

    Attributes:
        where: the read model, or `log`, or `checkpoints`.
        conversation_id: the conversation concerned, if one is. user_id: the user, likewise.
    """

    where: str
    what: str
    conversation_id: int | None = None
    user_id: str | None = None

    def __str__(self) -> str:
        about = "" if self.conversation_id is None else f" conversation {self.conversation_id}:"
        about += "" if self.user_id is None else f" user {self.user_id}:"
        return f"{self.where}:{about} {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        id_ = None if self.conversation_id is None else str(self.conversation_id)
        return {"where": self.where, "conversation_id": id_, "user_id": self.user_id, "what": self.what}


@dataclass(slots=True)
class ModelReport:
    """One read model: how many conversations or users and rows the log says it has, and where it differs.

    Attributes:
        keys: what its rows are told apart by: `conversations` or `users`.
        key_count: how many of them have rows.
    """

    model: str
    keys: str
    key_count: int
    rows: int
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """One verification.

    Attributes:
        events: read from the log.
        faults: of the log itself, and of projections that did not keep up.
    """

    events: int
    conversations: int
    users: int
    models: list[ModelReport]
    faults: list[Difference]

    @property
    def differences(self) -> list[Difference]:
        """All that is wrong, the log's own faults first."""
        return [*self.faults, *(difference for model in self.models for difference in model.differences)]

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "equal": self.equal,
            "events": self.events,
            "conversations": self.conversations,
            "users": self.users,
            "models": {
                model.model: {
                    model.keys: model.key_count,
                    "rows": model.rows,
                    "different": len(model.differences),
                }
                for model in self.models
            },
            "log_faults": len(self.faults),
            "differences": [difference.as_dict() for difference in self.differences[:SHOWN_MAX]],
        }
