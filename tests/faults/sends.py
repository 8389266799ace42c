"""Attempts held against the log, in the manner of Jepsen's checker of queues: every message is accounted for.

Pure functions over what `recording` has. The order that is demanded is the one that clients can know of: a message
whose sending began after another was acked comes after it, whoever sent them; and what one session sent into one
conversation, and had acked as new at the first attempt, is in the order it was sent, though nobody waited in between.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.faults.recording import Attempt, Logged, MessageKey
from tests.faults.verdict import Verdict


def check_sends(log: Sequence[Logged], attempts: Iterable[Attempt], verdict: Verdict) -> None:
    """Account for every message.

    Args:
        log: the conversations that the attempts were about, and no others; each in the log's order.
    """
    tried: dict[MessageKey, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        verdict.count("attempts")
        tried[attempt.message].append(attempt)
    stored: dict[MessageKey, list[Logged]] = defaultdict(list)
    seqs: dict[str, list[int]] = defaultdict(list)
    for event in log:
        verdict.count("events")
        if event.seq:
            stored[event.message].append(event)
            seqs[event.conversation].append(event.seq)
    check_numbers(log, verdict)
    for key, events in stored.items():
        verdict.find("doubled", f"{_named(key)} has seqs {[event.seq for event in events]}", len(events) - 1)
        if key not in tried:
            verdict.find("never_attempted", f"{_named(key)}, seq {events[0].seq}")
    for key, of_message in tried.items():
        verdict.count("messages")
        events = stored.get(key, [])
        _account(key, of_message, events[0] if events else None, seqs[key[0]], verdict)
    _check_order(tried, stored, verdict)


def check_numbers(log: Sequence[Logged], verdict: Verdict) -> None:
    """Versions and seqs of each conversation are 1, 2, 3, … in the log's order."""
    versions: dict[str, list[int]] = defaultdict(list)
    seqs: dict[str, list[int]] = defaultdict(list)
    for event in log:
        versions[event.conversation].append(event.version)
        if event.seq:
            seqs[event.conversation].append(event.seq)
    for what, numbers in (("version", versions), ("seq", seqs)):
        for id_, found in numbers.items():
            missing = sorted(set(range(1, max(found) + 1)) - set(found))
            verdict.find(f"{what}_holes", f"{what}s {missing[:10]} of {id_}", len(missing))
            if not missing and found != list(range(1, max(found) + 1)):
                # Each is there, and one is there twice or too early: as bad as a hole for who counts on the next.
                wrong = sum(later != earlier + 1 for earlier, later in pairwise(found))
                verdict.find(f"{what}_holes", f"{what}s of {id_} do not rise by one, {wrong} times", wrong)


def _account(
    key: MessageKey, attempts: list[Attempt], event: Logged | None, seqs: Sequence[int], verdict: Verdict
) -> None:
    """One message: what its attempts say, and what the log says."""
    acks = [attempt for attempt in attempts if attempt.outcome == "acked"]
    if event is not None and (differing := {attempt.text for attempt in attempts} - {event.text}):
        verdict.find("altered", f"{_named(key)}: {sorted(differing)} sent, {event.text} in the log")
    if acks:
        verdict.count("acked")
        verdict.count("acked_again", sum(ack.duplicate for ack in acks))
        _check_acks(key, acks, event, seqs, verdict)
    elif any(attempt.outcome == "unknown" for attempt in attempts):
        verdict.count("unknown_then_absent" if event is None else "unknown_then_present")
    else:
        verdict.count("refused")
        if event is not None:
            verdict.find("refused_then_present", f"{_named(key)}: {attempts[0].code}, and has seq {event.seq}")


def _check_acks(
    key: MessageKey, acks: list[Attempt], event: Logged | None, seqs: Sequence[int], verdict: Verdict
) -> None:
    places = {(ack.seq, ack.version, ack.message_id) for ack in acks}
    if event is None:
        verdict.find(_lost(acks[0].seq, seqs), f"{_named(key)}, acked as seq {acks[0].seq}")
    elif places != {(event.seq, event.version, event.message_id)}:
        where = (event.seq, event.version, event.message_id)
        verdict.find("acked_otherwise", f"{_named(key)} as {sorted(places)}, in the log as {where}")
    elif sum(not ack.duplicate for ack in acks) > 1:
        verdict.find("acked_otherwise", f"{_named(key)} twice as new")


def _lost(seq: int, seqs: Sequence[int]) -> str:
    if seqs and seq < min(seqs):
        return "lost_prefix"
    return "lost_middle" if seqs and seq < max(seqs) else "lost_tail"


def _check_order(
    tried: dict[MessageKey, list[Attempt]], stored: dict[MessageKey, list[Logged]], verdict: Verdict
) -> None:
    sessions: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    conversations: dict[str, list[tuple[float, float, int, MessageKey]]] = defaultdict(list)
    for key, attempts in tried.items():
        if key not in stored:
            continue
        first = min(attempts, key=lambda attempt: attempt.sent_s)
        acked_s = [attempt.ended_s for attempt in attempts if attempt.outcome == "acked"]
        if acked_s:
            conversations[key[0]].append((first.sent_s, min(acked_s), stored[key][0].seq, key))
        if first.outcome == "acked" and not first.duplicate:
            sessions[first.conversation, first.session].append(first)
    late: set[MessageKey] = set()
    for of_conversation in conversations.values():
        late |= _sent_after_an_ack(of_conversation, verdict)
    seqs = {key: events[0].seq for key, events in stored.items()}
    for of_session in sessions.values():
        _in_the_order_of_a_session(of_session, seqs, late, verdict)


def _sent_after_an_ack(messages: list[tuple[float, float, int, MessageKey]], verdict: Verdict) -> set[MessageKey]:
    """What was sent after the ack of another and came before it."""
    by_ack = sorted((acked_s, seq, key) for _, acked_s, seq, key in messages)
    acked_s = [one[0] for one in by_ack]
    furthest: list[tuple[int, MessageKey]] = []
    for _, seq, key in by_ack:
        furthest.append(max(furthest[-1], (seq, key)) if furthest else (seq, key))
    late = set()
    for sent_s, _, seq, key in messages:
        before = bisect_left(acked_s, sent_s)
        if before and furthest[before - 1][0] > seq:
            late.add(key)
            than = furthest[before - 1]
            verdict.find(
                "out_of_order", f"{_named(key)} has seq {seq}, sent after the ack of {_named(than[1])}, {than[0]}"
            )
    return late


def _in_the_order_of_a_session(
    attempts: list[Attempt], seqs: dict[MessageKey, int], found: set[MessageKey], verdict: Verdict
) -> None:
    furthest: Attempt | None = None
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        seq = seqs[attempt.message]
        if furthest is not None and seq < seqs[furthest.message]:
            if attempt.message not in found:
                what = f"{_named(attempt.message)} has seq {seq}, sent in one session after"
                verdict.find("out_of_order", f"{what} {furthest.client_msg_id}, {seqs[furthest.message]}")
        else:
            furthest = attempt


def _named(key: MessageKey) -> str:
    conversation, sender, client_msg_id = key
    return f"{client_msg_id} of {sender} in {conversation}"
