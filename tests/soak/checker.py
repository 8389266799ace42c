"""Holds what clients have against the log: nothing lost, nothing twice, nothing that was not so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.soak.history import History, Stay
from tests.soak.holding import Account, Holding

FINDINGS_MAX = 50  # kept in words; all are counted

Ranges = list[tuple[int, int]]


@dataclass
class Verdict:
    """What was found.

    Attributes:
        lost: events that a client should have been given and was not, one by one.
        doubled: events that a client was pushed again.
        wrong: spans with another content than the log's, events that were not the client's to see, pushes out of
            order, acks of what is not in the log, and whatever else is not as it should be.
        findings: the first of them in words.
    """

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not (self.lost or self.doubled or self.wrong)

    def lose(self, count: int, what: str) -> None:
        """Count lost events."""
        if count:
            self.lost += count
            self._say(f"{count} lost: {what}")

    def double(self, count: int, what: str) -> None:
        """Count doubled events."""
        if count:
            self.doubled += count
            self._say(f"{count} doubled: {what}")

    def fault(self, what: str, count: int = 1) -> None:
        """Count what is wrong."""
        if count:
            self.wrong += count
            self._say(f"wrong: {what}")

    def _say(self, what: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)


def check(history: History, known: Mapping[str, int], accounts: Iterable[Account]) -> Verdict:
    """Compare clients' accounts with the log.

    Args:
        known: the version of each conversation that was there before the clients came; they were to be given what
            follows it.
    """
    verdict = Verdict()
    for fault in history.faults:
        verdict.fault(f"the log: {fault}")
    for account in accounts:
        verdict.double(account.doubled, account.client)
        verdict.fault(f"{account.client} was pushed {account.disordered} events out of order", account.disordered)
        stays = history.stays.get(account.user_id, {})
        for id_ in sorted({*stays, *account.holdings}):
            holding = account.holdings.get(id_) or Holding.after(0)
            _compare(verdict, history, account.client, id_, holding, stays.get(id_, []), known.get(id_, 0))
        for id_, version, client_msg_id in account.acked:
            if history.posted.get(id_, {}).get(version) != client_msg_id:
                verdict.fault(f"{account.client}: {client_msg_id} was acked as version {version} of {id_} and is not")
    return verdict


def _compare(
    verdict: Verdict, history: History, client: str, id_: str, holding: Holding, stays: list[Stay], known: int
) -> None:
    what = f"{client} in {id_}"
    newest = history.version(id_)
    due = [(max(stay.first, known + 1), stay.last or newest) for stay in stays]
    held = [(span.first, span.last) for span in holding.spans]
    missing = _without(due, held)
    verdict.lose(_size(missing), f"{what}, versions {_shown(missing)}")
    # Who leaves and comes back may be given what happened meanwhile, or not: it is in the past of a member.
    allowed = [(due[0][0], due[-1][1])] if due else []
    foreign = _without(held, allowed)
    verdict.fault(f"{what} has versions {_shown(foreign)}, which it was not to be given", _size(foreign))
    for span in holding.spans:
        wanted = history.digest(id_, span.first, span.last)
        if wanted is not None and wanted != span.digest:
            verdict.fault(f"{what}, versions {span.first} to {span.last}: not what the log has")


def _without(ranges: Ranges, others: Ranges) -> Ranges:
    """The parts of ranges that no other range covers."""
    left = [(first, last) for first, last in ranges if first <= last]
    for start, end in others:
        left = [
            piece
            for first, last in left
            for piece in ((first, min(last, start - 1)), (max(first, end + 1), last))
            if piece[0] <= piece[1]
        ]
    return left


def _size(ranges: Ranges) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _shown(ranges: Ranges) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
