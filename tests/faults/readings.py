"""What clients have, and what the read models say, held against the log. Pure functions over what was read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tests.faults.recording import Delivered, Logged
from tests.faults.verdict import Verdict
from tests.soak.checker import check
from tests.soak.history import History
from tests.soak.holding import Account


class Message(msgspec.Struct, frozen=True):
    """A message as a page of the history has it; `text` is a digest."""

    seq: int
    version: int
    message_id: str
    sender: str
    client_msg_id: str
    text: str


class Entry(msgspec.Struct, frozen=True):
    """A user's conversation as their inbox has it."""

    conversation: str
    version: int
    last_seq: int
    last_message_id: str | None


class Models(msgspec.Struct, frozen=True):
    """What the read models say.

    Attributes:
        differences: what `riverrun verify` found, in words.
        histories: of each conversation, all pages of it.
        inboxes: of each user.
        members: of each conversation, those whose inboxes were read.
    """

    differences: list[str]
    histories: dict[str, list[Message]]
    inboxes: dict[str, list[Entry]]
    members: dict[str, list[str]]


def check_deliveries(log: Sequence[Logged], delivered: Iterable[Delivered], verdict: Verdict) -> None:
    """Everything that was delivered is in the log, like that."""
    digests = {(event.conversation, event.version): event.digest for event in log}
    for delivery in delivered:
        verdict.count("deliveries")
        if digests.get((delivery.conversation, delivery.version)) != delivery.digest:
            what = f"version {delivery.version} of {delivery.conversation}"
            verdict.find("delivered_not_in_log", f"{delivery.client} was given {what} as {delivery.digest}")


def check_clients(history: History, known: Mapping[str, int], accounts: Iterable[Account], verdict: Verdict) -> None:
    """Every client has everything that it was to be given, once and in order. See `tests.soak.checker`."""
    found = check(history, known, accounts)
    count = found.lost + found.doubled + found.wrong
    for finding in found.findings[:-1]:
        verdict.find("clients_differ", finding)
    if found.findings:
        verdict.find("clients_differ", found.findings[-1], max(1, count - len(found.findings) + 1))


def check_models(log: Sequence[Logged], models: Models, verdict: Verdict, *, planted: Sequence[str] = ()) -> None:
    """Read models, pages of history and inboxes are what the log says.

    Args:
        planted: how differences begin that are to be found, because they were put there.
    """
    for difference in models.differences:
        if not difference.startswith(tuple(planted)):
            verdict.find("models_differ", difference)
    for what in planted:
        if not any(difference.startswith(what) for difference in models.differences):
            verdict.find("models_differ", f"{what} was planted, and verify has not found it")
    messages: dict[str, list[Message]] = defaultdict(list)
    heads: dict[str, Entry] = {}
    for event in log:
        id_ = event.conversation
        head = heads.get(id_, Entry(id_, 0, 0, None))
        if event.seq:
            who = (event.sender, event.client_msg_id, event.text)
            messages[id_].append(Message(event.seq, event.version, event.message_id, *who))
            heads[id_] = Entry(id_, event.version, event.seq, event.message_id)
        else:
            heads[id_] = Entry(id_, event.version, head.last_seq, head.last_message_id)
    for id_, page in models.histories.items():
        if page != messages[id_]:
            verdict.find("models_differ", f"the history of {id_}: {_first_difference(page, messages[id_])}")
    for user_id, entries in models.inboxes.items():
        found = {entry.conversation: entry for entry in entries}
        for id_, members in models.members.items():
            wanted = heads.get(id_) if user_id in members else None
            if found.get(id_) != wanted:
                verdict.find("models_differ", f"{user_id}'s inbox has {found.get(id_)}, in the log it is {wanted}")


def _first_difference(found: list[Message], wanted: list[Message]) -> str:
    for ours, theirs in zip(found, wanted, strict=False):
        if ours != theirs:
            return f"{ours}, in the log {theirs}"
    return f"{len(found)} messages, in the log {len(wanted)}"
