"""The rules of posting: who may, what may be said, and that a message is posted once however often it is sent."""

from typing import Any

import pytest

from domain.conversations import RECEIPTS_MAX, Conversation, ReceiptUnknown
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.ids import compose
from domain.members import Kind
from domain.messages import Receipt
from domain.seen import SeenFilter
from tests.domain.given import ADMIN, ID, OWNER, SLOT, Story, created, given, posted, refused


def test_a_member_posts() -> None:
    group = given(created(members=["mia"]), posted(OWNER, "1"))
    receipt, duplicate = group.post("mia", "2", "he\r\nllo", reply_to=ID + 1, mentions=["noa", "noa"])
    assert not duplicate
    assert (receipt.seq, receipt.version, receipt.created_at) == (2, 3, group.now)
    assert group.then() == [
        (
            "message.posted",
            {
                "seq": 2,
                "message_id": receipt.message_id,
                "client_msg_id": "2",
                "body": {"type": "text", "text": "he\nllo"},
                "reply_to": ID + 1,
                "mentions": ["noa"],
            },
        )
    ]


@pytest.mark.parametrize(
    ("kind", "settings", "sender", "allowed"),
    [
        ("group", {}, "mia", True),
        ("group", {"post": "admins"}, "mia", False),
        ("group", {"post": "admins"}, ADMIN, True),
        ("channel", {}, "mia", False),
        ("channel", {}, OWNER, True),
        ("channel", {"post": "members"}, "mia", True),
        ("direct", {}, "mia", True),
    ],
)
def test_kind_and_settings_say_who_may_post(kind: Kind, settings: dict[str, str], sender: str, allowed: bool) -> None:
    conversation = given(created(kind, members=["mia"], settings=settings))
    if allowed:
        conversation.post(sender, "1")
        assert len(conversation.then()) == 1
    else:
        with refused(Forbidden):
            conversation.post(sender, "1")


def test_a_blocked_pair_posts_nothing_new_but_what_was_acked_stays_acked() -> None:
    direct = given(created("direct", members=["mia"]), posted("mia", "1"))
    receipt, duplicate = direct.post("mia", "1", blocked=True)
    assert (receipt.seq, duplicate) == (1, True)
    for sender in ("mia", OWNER):
        with refused(Forbidden):
            direct.post(sender, "2", blocked=True)
    with refused(NotFound):
        direct.post("stranger", "2", blocked=True)
    assert direct.then() == []


def test_a_stranger_learns_nothing() -> None:
    with refused(NotFound):
        given(created()).post("stranger", "not an id", "\x00")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"client_msg_id": "a b"}, "client_msg_id"),
        ({"text": ""}, "body.text"),
        ({"mentions": ["not a user"]}, "mentions"),
        ({"reply_to": ID + 2}, "reply_to"),  # newer than the newest message
        ({"reply_to": compose(1_795_435_100_000, SLOT + 1, 0)}, "reply_to"),  # of another conversation's slot
    ],
)
def test_a_message_that_cannot_be_is_refused(arguments: dict[str, Any], field: str) -> None:
    group = given(created(members=["mia"]), posted(OWNER, "1"))
    with refused(Invalid, field):
        group.post("mia", **{"client_msg_id": "2", **arguments})
    assert group.then() == []


def test_a_restored_conversation_knows_its_newest_message() -> None:
    group = given(created(), posted(OWNER, "1"))
    restored = Story(Conversation.restore(group.conversation.state()))
    restored.post(OWNER, "2", reply_to=ID + 1)
    with refused(Invalid, "reply_to"):
        Story(Conversation.restore(group.conversation.state())).post(OWNER, "2", reply_to=ID + 2)


# -- a message is posted once -------------------------------------------------------------------------------


def test_a_retry_gets_the_first_receipt_and_makes_no_event() -> None:
    group = given(created(members=["mia"]))
    first, _ = group.post("mia", "1", "a\r\nb", mentions=["noa"])
    group.take()
    assert group.post("mia", "1", "a\nb", mentions=["noa", "noa"]) == (first, True)
    assert group.then() == []


@pytest.mark.parametrize("other", [{"text": "bye"}, {"mentions": ["noa"]}, {"reply_to": ID + 1}])
def test_the_same_id_for_another_message_is_a_conflict(other: dict[str, Any]) -> None:
    group = given(created(members=["mia"]), posted(OWNER, "0"))
    group.post("mia", "1")
    group.take()
    with refused(Conflict, "client_msg_id"):
        group.post("mia", "1", **other)
    assert group.then() == []


def test_two_senders_may_use_the_same_id() -> None:
    group = given(created(members=["mia"]))
    group.post("mia", "1")
    group.post(OWNER, "1")
    assert [fields["seq"] for _, fields in group.then()] == [1, 2]


def test_a_retry_is_answered_although_posting_was_closed_meanwhile() -> None:
    group = given(created(members=["mia"]))
    first, _ = group.post("mia", "1")
    group.update(OWNER, post="admins")
    assert group.post("mia", "1") == (first, True)


def long_group() -> tuple[Story, dict[str, Receipt]]:
    """A group with more messages than receipts are kept of, and the receipts its senders got."""
    group = given(created(members=["mia"]))
    receipts = {f"m{i}": group.post("mia", f"m{i}", f"text {i}")[0] for i in range(RECEIPTS_MAX + 50)}
    group.take()
    return group, receipts


def test_the_newest_messages_are_answered_from_memory() -> None:
    group, receipts = long_group()
    for i in range(50, RECEIPTS_MAX + 50):
        assert group.post("mia", f"m{i}", f"text {i}") == (receipts[f"m{i}"], True)
    assert group.then() == []


def test_an_older_one_is_looked_up_and_then_answered_the_same() -> None:
    group, receipts = long_group()
    with pytest.raises(ReceiptUnknown) as unknown:
        group.post("mia", "m0", "text 0")
    assert (unknown.value.sender_id, unknown.value.client_msg_id) == ("mia", "m0")
    assert unknown.value.up_to_version == receipts["m49"].version  # the newest that is forgotten
    again = group.post("mia", "m0", "text 0", looked_up=receipts["m0"], was_looked_up=True)
    assert again == (receipts["m0"], True)
    with refused(Conflict, "client_msg_id"):
        group.post("mia", "m0", "another", looked_up=receipts["m0"], was_looked_up=True)
    assert group.then() == []


def test_one_that_only_looks_seen_is_posted_after_the_look_up() -> None:
    group, _ = long_group()
    seen = SeenFilter.restore(*group.conversation.state()["forgotten"])
    looks_seen = next(name for name in map(str, range(1_000_000)) if seen.may_contain("mia", name))
    with pytest.raises(ReceiptUnknown):
        group.post("mia", looks_seen)
    receipt, duplicate = group.post("mia", looks_seen, was_looked_up=True)
    assert (receipt.seq, duplicate) == (RECEIPTS_MAX + 51, False)


def test_nothing_is_looked_up_while_every_receipt_is_kept() -> None:
    group = given(created(members=["mia"]))
    for i in range(RECEIPTS_MAX):
        assert group.post("mia", str(i))[1] is False
    assert len(group.take()) == RECEIPTS_MAX
