"""What came of a step."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

FAULTS_KEPT = 20


@dataclass(slots=True)
class Outcome:
    """A step of a proof.

    Attributes:
        seconds: how long it took.
        count: how many `unit` it did. Both are, of a step that was broken off, since it went on.
        note: what else there is to be said.
        faults: what is not as it should be, a line each; the first twenty.
        fault_count: how many there are.
        numbers: figures for the report, by name.
    """

    step: str
    count: int = 0
    unit: str = "events"
    seconds: float = 0.0
    note: str = ""
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0
    numbers: dict[str, float] = field(default_factory=dict)

    def fault(self, text: str) -> None:
        """Something is not as it should be."""
        self.fault_count += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(text)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**values)
