"""What the tests of the checker plant violations in: a recording as a run would make it, and what is made of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from domain.conversations import Conversation
from domain.events import ConversationCreated, Event, MessagePosted
from tests.faults.recording import (
    Attempt,
    Logged,
    logged,
)
from tests.faults.sends import check_sends
from tests.faults.verdict import VIOLATIONS, Verdict

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
