"""What the checker found: counts that all runs have, counts that must be zero, and the first findings in words."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

FINDINGS_MAX: Final = 50  # kept in words; all are counted

# What must not be, by the name it has in tables and in words.
VIOLATIONS: Final = {
    "lost_prefix": "acked, not in the log, before all that is there",
    "lost_middle": "acked, not in the log, between what is there",
    "lost_tail": "acked, not in the log, after all that is there",
    "doubled": "more than once in the log",
    "seq_holes": "seqs missing in the log",
    "version_holes": "versions missing in the log",
    "out_of_order": "after a message that was sent later",
    "acked_otherwise": "acked with another place than the log's, or in two ways",
    "altered": "another text in the log than was sent",
    "refused_then_present": "refused for good, and in the log",
    "never_attempted": "in the log, and never sent",
    "delivered_not_in_log": "delivered, not in the log or not like that",
    "clients_differ": "events that a client lacks, has twice, or has otherwise",
    "models_differ": "places where a read model is not what the log says",
}

# What may be, and is worth a number.
COUNTS: Final = (
    "attempts",
    "messages",
    "acked",
    "acked_again",  # by an ack that says `duplicate`
    "refused",
    "unknown_then_present",
    "unknown_then_absent",
    "events",
    "deliveries",
)


class Verdict:
    """Counts and findings, added up part by part.

    Attributes:
        counts: of `COUNTS` and `VIOLATIONS`.
        findings: the first of the violations in words.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []

    def count(self, what: str, by: int = 1) -> None:
        """Count what may be."""
        assert what in COUNTS
        self.counts[what] += by

    def find(self, violation: str, about: str, by: int = 1) -> None:
        """Count what must not be."""
        assert violation in VIOLATIONS
        if by:
            self.counts[violation] += by
            if len(self.findings) < FINDINGS_MAX:
                self.findings.append(f"{violation} ({VIOLATIONS[violation]}): {about}")

    @property
    def lost(self) -> int:
        """Acked and not in the log, wherever it should be."""
        return sum(self.counts[name] for name in ("lost_prefix", "lost_middle", "lost_tail"))

    @property
    def holes(self) -> int:
        """Of seqs and of versions."""
        return self.counts["seq_holes"] + self.counts["version_holes"]

    @property
    def passed(self) -> bool:
        """Whether nothing is there that must not be."""
        return not any(self.counts[name] for name in VIOLATIONS)

    def as_dict(self) -> dict[str, object]:
        """The JSON form."""
        names = (*COUNTS, *VIOLATIONS)
        return {"passed": self.passed, **{name: self.counts[name] for name in names}, "findings": self.findings}


def total(verdicts: Iterable[Verdict]) -> Verdict:
    """All of several."""
    whole = Verdict()
    for verdict in verdicts:
        whole.counts += verdict.counts
        whole.findings += verdict.findings[: FINDINGS_MAX - len(whole.findings)]
    return whole
