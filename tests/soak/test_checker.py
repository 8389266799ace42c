"""The checker of the soak, on a log of one conversation: what is planted is found, and counted."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import pytest

from domain.conversations import Conversation
from domain.events import ConversationCreated, Event, MemberAdded, MemberRemoved, MessagePosted
from streams.public import to_public
from tests.domain.given import ID, START
from tests.soak.checker import Verdict, check
from tests.soak.client import Client
from tests.soak.history import History
from tests.soak.holding import Account, Arrival, Holding
from tests.soak.report import CatchUp, Kill, catch_ups
from tests.soak.tally import Outage, Tally

CONVERSATION = str(ID)
OTHER = str(ID + 1)
KNOWN = 2  # the version that was there before the clients came


def made(number: int, kind: type[Event], actor_id: str, /, **fields: object) -> Event:
    """An event of the conversation."""
    return kind(
        originator_id=CONVERSATION,
        originator_version=number,
        timestamp=START + timedelta(seconds=number),
        actor_id=actor_id,
        **fields,
    )


def message(number: int, seq: int) -> Event:
    """A message of mia's."""
    text = {"type": "text", "text": f"message {seq}"}
    return made(
        number,
        MessagePosted,
        "mia",
        seq=seq,
        message_id=ID + seq,
        client_msg_id=f"m{seq}",
        body=text,
        reply_to=None,
        mentions=[],
    )


LOG: list[Event] = [
    made(
        1,
        ConversationCreated,
        "mia",
        originator_topic=Conversation.TOPIC,
        kind="group",
        name=None,
        members={"mia": "owner", "ann": "member"},
        settings={},
    ),
    message(2, 1),
    message(3, 2),
    message(4, 3),
    made(5, MemberAdded, "mia", user_id="bob", role="member", joined_seq=4),
    message(6, 4),
    made(7, MemberRemoved, "mia", user_id="bob"),
    message(8, 5),
    message(9, 6),
]


def pushed(events: Sequence[Event]) -> list[bytes]:
    """The frames in which events are pushed."""
    return [b'{"event":%b}' % msgspec.json.encode(to_public(event)) for event in events]


def given(user_id: str, frames: Sequence[bytes], *, known: int | None = KNOWN) -> Account:
    """What a client has that was pushed these frames."""
    account = Account(f"{user_id}/phone", user_id)
    before = {} if known is None else {CONVERSATION: known}
    client = Client(account, "", [], before, Tally(), random.Random(1))
    for frame in frames:
        client.take(frame)
    return account


def checked(*accounts: Account, log: Sequence[Event] = LOG) -> Verdict:
    """The checker's verdict."""
    history = History()
    for event in log:
        history.add(event)
    return check(history, {CONVERSATION: KNOWN}, accounts)


def counts(verdict: Verdict) -> tuple[int, int, int]:
    """Lost, doubled, wrong."""
    return verdict.lost, verdict.doubled, verdict.wrong


ANN = pushed(LOG[KNOWN:])
BOB = pushed(LOG[4:7])


def test_who_has_everything_passes() -> None:
    verdict = checked(given("ann", ANN), given("bob", BOB, known=None), given("eve", [], known=None))
    assert verdict.passed
    assert counts(verdict) == (0, 0, 0)
    assert verdict.findings == []


@pytest.mark.parametrize("missing", range(len(ANN)))
def test_a_lost_event_is_found_wherever_it_is(missing: int) -> None:
    verdict = checked(given("ann", ANN[:missing] + ANN[missing + 1 :]))
    assert counts(verdict) == (1, 0, 0)
    assert f"versions {KNOWN + 1 + missing}" in verdict.findings[0]


def test_all_are_lost_of_who_was_never_told() -> None:
    assert counts(checked(given("ann", []))) == (len(ANN), 0, 0)
    assert counts(checked(given("bob", [], known=None))) == (len(BOB), 0, 0)


@pytest.mark.parametrize("twice", range(len(ANN)))
@pytest.mark.parametrize("again", ["at once", "at the end"])
def test_a_doubled_event_is_found_wherever_it_is(twice: int, again: str) -> None:
    at = twice if again == "at once" else len(ANN)
    verdict = checked(given("ann", [*ANN[:at], ANN[twice], *ANN[at:]]))
    assert counts(verdict) == (0, 1, 0)


def test_an_event_from_before_the_client_came_is_doubled() -> None:
    assert counts(checked(given("ann", pushed(LOG[1:2]) + ANN))) == (0, 1, 0)


@pytest.mark.parametrize("spoilt", range(len(ANN)))
def test_a_wrong_event_is_found_wherever_it_is(spoilt: int) -> None:
    frames = list(ANN)
    frames[spoilt] = frames[spoilt].replace(b'"actor_id":"mia"', b'"actor_id":"eve"')
    assert frames != ANN
    assert counts(checked(given("ann", frames))) == (0, 0, 1)


def test_an_event_that_comes_late_is_lost_in_its_place_and_out_of_order() -> None:
    verdict = checked(given("ann", [ANN[0], ANN[2], ANN[1], *ANN[3:]]))
    assert counts(verdict) == (1, 0, 1)


def test_who_is_no_member_is_to_be_given_nothing() -> None:
    before, after = pushed(LOG[3:4]), pushed(LOG[7:8])
    assert counts(checked(given("bob", before + BOB, known=None))) == (0, 0, 1)
    assert counts(checked(given("bob", BOB + after, known=None))) == (0, 0, 1)
    assert counts(checked(given("eve", ANN, known=None))) == (0, 0, len(ANN))


def test_what_happened_while_a_member_was_away_may_be_given_or_not() -> None:
    log = [*LOG, made(10, MemberAdded, "mia", user_id="bob", role="member", joined_seq=7), message(11, 7)]
    without, whole = BOB + pushed(log[9:]), pushed(log[4:])
    assert checked(given("bob", without, known=None), given("bob", whole, known=None), log=log).passed
    assert counts(checked(given("bob", without[:-1], known=None), log=log)) == (1, 0, 0)


def test_what_the_log_does_not_have_is_wrong() -> None:
    verdict = checked(given("ann", [*ANN, *pushed([message(10, 7)])]))
    assert counts(verdict) == (0, 0, 1)


def test_an_ack_of_what_the_log_does_not_have_is_wrong() -> None:
    account = given("ann", ANN)
    account.acked = [(CONVERSATION, 8, "m5"), (CONVERSATION, 9, "m5"), (OTHER, 9, "m6")]
    assert counts(checked(account)) == (0, 0, 2)


def test_a_log_with_a_hole_or_a_message_twice_is_wrong() -> None:
    assert counts(checked(log=[LOG[0], *LOG[2:3]])) == (0, 0, 1)
    assert counts(checked(log=[*LOG[:3], message(4, 2)])) == (0, 0, 1)


def event_bytes(number: int) -> bytes:
    return b"event %d" % number


def test_what_was_pulled_may_be_pushed_once_but_not_to_who_said_to_have_it() -> None:
    def with_pulled(*told: Callable[[Holding], None]) -> Holding:
        holding = Holding.after(3)
        for number in (4, 5):
            holding.pull(number, event_bytes(number))
        for tell in told:
            tell(holding)
        return holding

    live, resumed = with_pulled(), with_pulled(Holding.resumed)
    assert live.push(5, event_bytes(5)) is Arrival.PULLED_BEFORE
    assert live.push(5, event_bytes(5)) is Arrival.DOUBLED
    assert live.push(6, event_bytes(6)) is Arrival.NEW
    assert resumed.push(5, event_bytes(5)) is Arrival.DOUBLED
    assert [(span.first, span.last) for span in live.spans] == [(4, 6)]


def test_catch_up_counts_those_that_lost_their_session_by_a_kill() -> None:
    kills = [Kill(0, 100.0), Kill(1, 120.0)]
    outages = [
        Outage(0, 100.1, 101.5),
        Outage(0, 100.2, 102.5),
        Outage(0, 100.2, None),
        Outage(1, 100.2, 109.0),  # of the other gateway
        Outage(1, 119.0, 121.0),  # before the kill
    ]
    assert catch_ups(kills, outages) == [
        CatchUp(gateway=0, clients=3, unfinished=1, median_s=2.0, max_s=2.5),
        CatchUp(gateway=1, clients=0, unfinished=0, median_s=0, max_s=0),
    ]
