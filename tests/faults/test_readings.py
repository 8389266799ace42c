"""What clients have and what the read models say, held against a recorded log: what is planted is found."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from domain.events import Event
from streams.codec import Metadata, encode
from streams.ports import Delivery
from streams.public import to_public
from tests.faults.availability import accepted_after, outages
from tests.faults.check import ABOUT, MODELS, About, check_folder
from tests.faults.planted import ACKED, CONVERSATION, COUNT, EVENTS, START, STORED, unacked, violations
from tests.faults.readings import Entry, Message, Models, check_models
from tests.faults.recording import (
    ACCOUNTS,
    ATTEMPTS,
    DELIVERED,
    LOG,
    Attempt,
    Delivered,
    Logged,
    Recorder,
    digest_of,
    read,
)
from tests.faults.verdict import Verdict
from tests.soak.holding import Account, Arrival, Holding


def holding(events: Sequence[Event], *, after: int = 1) -> Account:
    """What ann's telephone has that was pushed these events."""
    held = Holding.after(after)
    arrivals = [held.push(event.originator_version, msgspec.json.encode(to_public(event))) for event in events]
    return Account("ann/phone", "ann", {CONVERSATION: held}, doubled=arrivals.count(Arrival.DOUBLED))


def history_page(log: Sequence[Logged] = STORED) -> list[Message]:
    return [
        Message(event.seq, event.version, event.message_id, event.sender, event.client_msg_id, event.text)
        for event in log
        if event.seq
    ]


def inbox(last: Logged = STORED[-1]) -> list[Entry]:
    return [Entry(CONVERSATION, last.version, last.seq, last.message_id)]


GOOD = Models([], {CONVERSATION: history_page()}, {"ann": inbox(), "eve": []}, {CONVERSATION: ["ann", "bob"]})
GIVEN = [Delivered("ann/phone", CONVERSATION, event.version, event.digest) for event in STORED[1:]]


def recorded(
    folder: Path,
    *,
    delivered: Sequence[Delivered] = GIVEN,
    accounts: Sequence[Account] = (),
    models: Models = GOOD,
) -> Verdict:
    """Record a run, and check what was recorded."""
    recorder = Recorder(folder)
    for number, event in enumerate(EVENTS, 1):
        record = encode(event, f"conv.0.{CONVERSATION}", Metadata())
        recorder.write(LOG, Delivery("CONV-0", number, record.subject, record.data, record.headers, START))
    poison = Delivery("CONV-0", len(EVENTS) + 1, f"conv.0.{CONVERSATION}", b"\xc1", {}, START)
    recorder.write(LOG, poison)
    for one in ACKED:
        recorder.write(ATTEMPTS, one)
    for delivery in delivered:
        recorder.write(DELIVERED, delivery)
    for account in accounts or [holding(EVENTS[1:])]:
        recorder.write(ACCOUNTS, account)
    recorder.close()
    (folder / ABOUT).write_bytes(msgspec.json.encode(About("planted", 1, {CONVERSATION: 1})))
    (folder / MODELS).write_bytes(msgspec.json.encode(models))
    return check_folder(folder)


def test_a_clean_recording_passes(tmp_path: Path) -> None:
    verdict = recorded(tmp_path)
    assert verdict.passed, verdict.findings
    assert (verdict.counts["acked"], verdict.counts["deliveries"]) == (COUNT, COUNT)


def test_a_delivery_that_is_not_in_the_log_is_found(tmp_path: Path) -> None:
    stranger = Delivered("bob/phone", CONVERSATION, 10, digest_of(b"never stored"))
    altered = Delivered("bob/phone", CONVERSATION, 3, digest_of(b"another"))
    assert violations(recorded(tmp_path, delivered=[*GIVEN, stranger, altered])) == {"delivered_not_in_log": 2}


@pytest.mark.parametrize(
    ("given_events", "count"),
    [(EVENTS[1:4] + EVENTS[5:], 1), (EVENTS[1:-2], 2), ([*EVENTS[1:], EVENTS[3]], 1)],
    ids=["lacks one", "lacks the last two", "has one twice"],
)
def test_a_client_that_differs_from_the_log_is_found(tmp_path: Path, given_events: list[Event], count: int) -> None:
    assert violations(recorded(tmp_path, accounts=[holding(given_events)])) == {"clients_differ": count}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: replace(good, differences=["heads: conversation 1000: 1 rows, with another content"]),
        lambda good: replace(good, histories={CONVERSATION: history_page()[:-1]}),
        lambda good: replace(good, histories={CONVERSATION: [*history_page()[:-1], history_page()[0]]}),
        lambda good: replace(good, inboxes={"ann": inbox(STORED[-2])}),
        lambda good: replace(good, inboxes={"ann": []}),
        lambda good: replace(good, inboxes={"eve": inbox()}),
    ],
    ids=["verify", "shorter history", "other history", "stale inbox", "no entry", "a stranger's entry"],
)
def test_a_read_model_that_differs_from_the_log_is_found(spoil: Callable[[Models], Models]) -> None:
    verdict = Verdict()
    check_models(STORED, GOOD, verdict)
    assert verdict.passed
    check_models(STORED, spoil(GOOD), verdict)
    assert violations(verdict) == {"models_differ": 1}


def test_what_was_planted_is_to_be_found_and_is_no_violation() -> None:
    def differing(differences: list[str]) -> dict[str, int]:
        verdict = Verdict()
        check_models(STORED, replace(GOOD, differences=differences), verdict, planted=["log: CONV-1 sequence 7:"])
        return violations(verdict)

    planted, other = "log: CONV-1 sequence 7: KeyError('Rr-Version')", "log: CONV-1 sequence 77: KeyError()"
    assert differing([planted]) == {}
    assert differing([planted, other]) == {"models_differ": 1}
    assert differing([]) == {"models_differ": 1}


def test_an_outage_is_the_longest_time_without_an_ack_in_a_partition() -> None:
    def acked(at_s: float, conversation: str) -> Attempt:
        return replace(ACKED[0], conversation=conversation, sent_s=at_s, ended_s=at_s)

    attempts = [acked(at_s, "a") for at_s in (0, 1, 2, 6, 7)] + [acked(at_s, "b") for at_s in (0.5, 9)]
    attempts.append(unacked(acked(4, "a"), "unknown"))
    partitions = {"a": 0, "b": 1, "c": 2}
    assert outages(attempts, partitions, from_s=1, until_s=10) == {0: 4, 1: 8, 2: 9}
    assert accepted_after(attempts, partitions, from_s=2.5) == {0: 3.5, 1: 6.5, 2: float("inf")}


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for one in ACKED:
        recorder.write(ATTEMPTS, one)
    recorder.close()
    assert list(read(tmp_path, ATTEMPTS, Attempt)) == ACKED
    assert list(read(tmp_path, DELIVERED, Delivered)) == []
