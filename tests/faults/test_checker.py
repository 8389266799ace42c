"""The checker, on recordings in which each kind of violation is planted: it finds it, calls it by its name, and counts.

A recording is made as a run would make it, from a small model of a server that acks, refuses and does not answer.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.conversations import Conversation
from domain.events import ConversationCreated, Event, MessagePosted
from streams.codec import Metadata, encode
from streams.ports import Delivery
from streams.public import to_public
from tests.faults.availability import accepted_after, outages
from tests.faults.check import ABOUT, MODELS, About, check_folder
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
    logged,
    read,
)
from tests.faults.sends import check_sends
from tests.faults.verdict import VIOLATIONS, Verdict
from tests.soak.holding import Account, Arrival, Holding

START = datetime(2026, 11, 25, tzinfo=UTC)
CONVERSATION = "1000"
SENDERS = ("ann", "bob")
COUNT = 8  # messages of the recording that violations are planted in


def message(seq: int, *, sender: str = "", client_msg_id: str = "") -> Event:
    """A message of the conversation, whose first event is its creation."""
    return MessagePosted(
        originator_id=CONVERSATION,
        originator_version=seq + 1,
        timestamp=START + timedelta(seconds=seq),
        actor_id=sender or SENDERS[seq % 2],
        seq=seq,
        message_id=int(CONVERSATION) + seq,
        client_msg_id=client_msg_id or f"m{seq}",
        body={"type": "text", "text": f"text {seq}"},
        reply_to=None,
        mentions=[],
    )


def created() -> Event:
    return ConversationCreated(
        originator_id=CONVERSATION,
        originator_version=1,
        timestamp=START,
        actor_id="ann",
        originator_topic=Conversation.TOPIC,
        kind="group",
        name=None,
        members={"ann": "owner", "bob": "member"},
        settings={},
    )


def entry(event: Event) -> Logged:
    found = logged(event)
    assert found is not None
    return found


EVENTS = [created(), *(message(seq) for seq in range(1, COUNT + 1))]
STORED = [entry(event) for event in EVENTS]


def attempt(event: Logged, at_s: float = 0, *, took_s: float = 0.5, session: str = "s1") -> Attempt:
    """The attempt that was acked as this event."""
    return Attempt(
        event.client_msg_id,
        event.sender,
        event.conversation,
        session=f"{event.sender} {session}",
        number=event.seq,
        intended_s=at_s or event.seq,
        sent_s=at_s or event.seq,
        ended_s=(at_s or event.seq) + took_s,
        text=event.text,
        outcome="acked",
        seq=event.seq,
        version=event.version,
        message_id=event.message_id,
    )


ACKED = [attempt(event) for event in STORED[1:]]


def unacked(one: Attempt, outcome: str, code: str = "") -> Attempt:
    return replace(one, outcome=outcome, code=code, seq=0, version=0, message_id="")


def sends(log: Sequence[Logged], attempts: Sequence[Attempt]) -> Verdict:
    verdict = Verdict()
    check_sends(log, attempts, verdict)
    return verdict


def violations(verdict: Verdict) -> dict[str, int]:
    return {name: verdict.counts[name] for name in VIOLATIONS if verdict.counts[name]}


def test_a_clean_run_passes() -> None:
    verdict = sends(STORED, ACKED)
    assert verdict.passed
    assert verdict.findings == []
    assert (verdict.counts["acked"], verdict.counts["attempts"], verdict.counts["events"]) == (8, 8, 9)


@pytest.mark.parametrize(("seq", "name"), [(1, "lost_prefix"), (4, "lost_middle"), (8, "lost_tail")])
def test_a_lost_message_is_found_wherever_it_was(seq: int, name: str) -> None:
    """Lost as a log loses that was cut or put back: what stands after it has moved up, or nothing does."""
    log = [event for event in STORED if event.seq != seq]
    verdict = sends(log, ACKED)
    assert verdict.lost == 1
    assert violations(verdict)[name] == 1
    assert f"m{seq} of" in " ".join(verdict.findings)


def test_all_are_lost_of_a_log_that_is_empty() -> None:
    assert violations(sends([], ACKED)) == {"lost_tail": COUNT}


def test_a_message_that_is_twice_in_the_log_is_doubled() -> None:
    again = entry(message(9, sender="bob", client_msg_id="m3"))
    assert violations(sends([*STORED, again], ACKED)) == {"doubled": 1}


@pytest.mark.parametrize("missing", [1, 4])
def test_a_hole_in_the_seqs_is_found(missing: int) -> None:
    log = [event for event in STORED if event.seq != missing]
    others = [one for one in ACKED if one.seq != missing]
    assert violations(sends(log, others)) == {"seq_holes": 1, "version_holes": 1}


def test_a_hole_in_the_versions_alone_is_found() -> None:
    log = [replace(event, version=event.version + 1) if event.seq > 4 else event for event in STORED]
    attempts = [replace(one, version=one.version + 1) if one.seq > 4 else one for one in ACKED]
    assert violations(sends(log, attempts)) == {"version_holes": 1}


def test_a_seq_that_two_messages_have_is_found() -> None:
    log = [*STORED[:-1], replace(STORED[-1], seq=7)]
    attempts = [*ACKED[:-1], replace(ACKED[-1], seq=7)]
    assert "seq_holes" in violations(sends(log, attempts))


def test_what_was_sent_after_an_ack_comes_after_it() -> None:
    swapped = [replace(ACKED[2], sent_s=20, ended_s=21), *ACKED[:2], *ACKED[3:]]
    verdict = sends(STORED, swapped)
    assert violations(verdict) == {"out_of_order": 1}
    assert "m3 of bob" in verdict.findings[0]


def test_what_was_under_way_together_may_have_either_order() -> None:
    together = [replace(one, sent_s=1, ended_s=2, session=one.client_msg_id) for one in ACKED]
    assert sends(STORED, together).passed


def test_what_one_session_sent_is_in_its_order_though_nothing_was_waited_for() -> None:
    together = [replace(one, sent_s=1, ended_s=2) for one in ACKED]
    assert sends(STORED, together).passed
    together[2], together[4] = (replace(together[n], number=together[m].number) for n, m in ((2, 4), (4, 2)))
    assert violations(sends(STORED, together)) == {"out_of_order": 1}


def test_a_later_attempt_has_no_claim_to_the_order_of_its_session() -> None:
    first = unacked(replace(ACKED[0], sent_s=0.1, ended_s=0.2), "unknown", "lost")
    late = [replace(one, sent_s=1, ended_s=2) for one in ACKED]
    late[0] = replace(late[0], number=99)
    assert sends(STORED, [first, *late]).passed


@pytest.mark.parametrize("field", ["seq", "version", "message_id"])
def test_an_ack_of_another_place_than_the_log_s_is_found(field: str) -> None:
    wrong = replace(ACKED[3], **{field: "1" if field == "message_id" else 77})
    assert violations(sends(STORED, [*ACKED[:3], wrong, *ACKED[4:]])) == {"acked_otherwise": 1}


def test_an_ack_that_differs_from_an_earlier_one_is_found() -> None:
    again = replace(ACKED[3], sent_s=30, ended_s=31, seq=8, duplicate=True)
    assert violations(sends(STORED, [*ACKED, again])) == {"acked_otherwise": 1}


def test_a_message_is_new_once() -> None:
    again = replace(ACKED[3], sent_s=30, ended_s=31, duplicate=True)
    verdict = sends(STORED, [*ACKED, again])
    assert verdict.passed
    assert verdict.counts["acked_again"] == 1
    assert violations(sends(STORED, [*ACKED, replace(again, duplicate=False)])) == {"acked_otherwise": 1}


def test_unknown_outcomes_are_told_apart_and_are_no_violations() -> None:
    attempts = [unacked(ACKED[0], "unknown"), *ACKED[1:-1], unacked(ACKED[-1], "unknown")]
    verdict = sends(STORED[:-1], attempts)
    assert verdict.passed
    assert verdict.counts["unknown_then_present"] == 1
    assert verdict.counts["unknown_then_absent"] == 1
    assert verdict.counts["acked"] == COUNT - 2


def test_what_was_refused_for_good_is_not_in_the_log() -> None:
    verdict = sends(STORED[:-1], [*ACKED[:-1], unacked(ACKED[-1], "refused", "forbidden")])
    assert verdict.passed
    assert verdict.counts["refused"] == 1
    attempts = [*ACKED[:-1], unacked(ACKED[-1], "refused", "forbidden")]
    assert violations(sends(STORED, attempts)) == {"refused_then_present": 1}


def test_what_nobody_sent_is_not_in_the_log() -> None:
    assert violations(sends(STORED, ACKED[:-1])) == {"never_attempted": 1}


def test_another_text_than_was_sent_is_found() -> None:
    log = [*STORED[:-1], replace(STORED[-1], text=digest_of(b"other"))]
    assert violations(sends(log, ACKED)) == {"altered": 1}


# -- what clients have and what the read models say, through a recorded folder ------------------------------


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


# -- any run of a server that keeps its promises ------------------------------------------------------------


def well_served(draw: random.Random, count: int) -> tuple[list[Logged], list[Attempt]]:
    """A run of messages of two senders: tried until acked or given up, against a server that keeps its promises."""
    log, attempts, clock_s = [STORED[0]], [], 0.0
    for number in range(1, count + 1):
        sender, stored = draw.choice(SENDERS), None
        text = digest_of(b"%d" % number)
        for again in range(draw.randint(1, 3)):
            clock_s += draw.random()
            if stored is None and draw.random() < 0.7:
                seq = len(log)
                stored = Logged(CONVERSATION, seq + 1, "", seq, f"id{seq}", sender, f"m{number}", text)
                log.append(stored)
                duplicate = False
            else:
                duplicate = stored is not None
            base = Attempt(
                f"m{number}",
                sender,
                CONVERSATION,
                f"{sender} s",
                number,
                clock_s,
                clock_s,
                clock_s + 0.1,
                text,
                "unknown",
            )
            clock_s += 0.2
            if stored is not None and draw.random() < 0.8:
                place = (stored.seq, stored.version, stored.message_id)
                base = replace(
                    base, outcome="acked", seq=place[0], version=place[1], message_id=place[2], duplicate=duplicate
                )
            attempts.append(replace(base, number=number + 1000 * again))
    return log, attempts


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 40))
def test_a_run_of_a_server_that_keeps_its_promises_passes(seed: int, count: int) -> None:
    log, attempts = well_served(random.Random(seed), count)
    verdict = sends(log, attempts)
    assert verdict.passed, verdict.findings
    assert verdict.counts["messages"] == count


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 40), data=st.data())
def test_an_acked_message_taken_out_of_any_log_is_lost(seed: int, count: int, data: st.DataObject) -> None:
    log, attempts = well_served(random.Random(seed), count)
    acked = sorted({one.client_msg_id for one in attempts if one.outcome == "acked"})
    if not acked:
        return
    gone = data.draw(st.sampled_from(acked))
    assert sends([event for event in log if event.client_msg_id != gone], attempts).lost == 1
