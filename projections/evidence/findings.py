"""What was found: which store is not as it was, and where."""

from dataclasses import dataclass, field
from typing import Any, Final

FINDINGS_MAX: Final = 1_000  # kept; all are counted

LOG: Final = "log"
ARCHIVE: Final = "archive"
WARM: Final = "warm"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was.

    Attributes:
        store: `log`, `archive` or `warm`.
        table: of the archive or the warm tier; "" of the log.
        sequence: of the event concerned, or of the last one.
        number: what the row is told by in its conversation or for its user: `seq 7`.
    """

    store: str
    table: str
    stream: str
    sequence: int
    what: str
    conversation_id: int | None = None
    number: str = ""

    def __str__(self) -> str:
        where = f"{self.store} {self.table}".rstrip()
        about = "" if self.conversation_id is None else f" conversation {self.conversation_id}"
        about += f" {self.number}" if self.number else ""
        return f"{where}: {self.stream}:{self.sequence}{about}: {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "store": self.store,
            "table": self.table or None,
            "stream": self.stream,
            "sequence": self.sequence,
            "conversation_id": None if self.conversation_id is None else str(self.conversation_id),
            "number": self.number or None,
            "what": self.what,
        }


class Findings:
    """All that was found.

    Attributes:
        kept: the first of them.
        count: how many in all.
    """

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add(self, finding: Finding) -> None:
        """Something was found."""
        self.count += 1
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)


@dataclass(slots=True)
class StreamReport:
    """What was gone through of a stream.

    Attributes:
        events, batches: of the archive. logged: events that the log has, those that are not archived too.
        sequence, link: of the chain's end: what to keep elsewhere.
    """

    stream: str
    events: int = 0
    batches: int = 0
    logged: int = 0
    sequence: int = 0
    link: str = ""


@dataclass(slots=True)
class ProofReport:
    """One proof. `rows`: that were compared, by store and table."""

    streams: list[StreamReport] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return self.findings.count == 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; `kept_of` reads it."""
        return {
            "intact": self.intact,
            "streams": [
                {name: getattr(stream, name) for name in StreamReport.__dataclass_fields__} for stream in self.streams
            ],
            "rows": self.rows,
            "findings": self.findings.count,
            "found": [finding.as_dict() for finding in self.findings.kept],
        }


def kept_of(report: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """The ends of the chains in an earlier report, by stream.

    Raises:
        ValueError: it is no report.
    """
    try:
        return {str(one["stream"]): (int(one["sequence"]), str(one["link"])) for one in report["streams"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no report of `verify --chain --json`: {error!r}") from None
