"""The checker, on recordings in which each kind of violation is planted: it finds it, calls it by its name, and counts.

A recording is made as a run would make it, from a small model of a server that acks, refuses and does not answer.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.faults.planted import (
    ACKED,
    CONVERSATION,
    COUNT,
    SENDERS,
    STORED,
    entry,
    message,
    sends,
    unacked,
    violations,
)
from tests.faults.recording import (
    Attempt,
    Logged,
    digest_of,
)


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


def test_who_was_overtaken_by_its_own_twin_has_none_either() -> None:
    together = [replace(one, sent_s=1, ended_s=2) for one in ACKED]
    twin = replace(together[0], sent_s=1.1, session="http/1")
    together[0] = replace(together[0], number=99, duplicate=True)
    assert sends(STORED, [*together, twin]).passed


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
