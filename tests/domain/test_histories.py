"""Random histories: whatever is asked of a conversation, what it decided and what the log gives back are one.

The receipts' window is 4 here instead of 512, so that histories of this length leave it again and again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import conversations
from domain.conversations import Conversation, ReceiptUnknown
from domain.errors import DomainError
from domain.events import Event, MessagePosted
from domain.members import Kind
from domain.messages import Receipt, content_digest
from tests.domain.given import ADMIN, ID, OWNER, START, Story, folded, stored_and_read

WINDOW = 4
USERS = (OWNER, ADMIN, "mia", "noa", "ben")
TEXTS = ("hello", "a\r\nb", "🌊")

user = st.sampled_from(USERS)
several = st.lists(user, max_size=3)
command = st.one_of(
    st.tuples(st.just("post"), user, st.integers(0, 30), st.sampled_from(TEXTS)),
    st.tuples(st.just("retry"), st.integers(0, 1_000)),
    st.tuples(st.just("update"), user, st.sampled_from([None, "Rapids", ""]), st.sampled_from(["members", "admins"])),
    st.tuples(st.just("change"), user, several, several, st.dictionaries(user, st.sampled_from(["admin", "member"]))),
)
kinds = st.sampled_from(["direct", "group", "channel"])


@pytest.fixture(autouse=True, scope="module")
def _small_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversations, "RECEIPTS_MAX", WINDOW)
        yield


@dataclass
class Chronicle:
    """A conversation with all it ever decided, and the receipts its senders were given."""

    story: Story
    events: list[Event] = field(default_factory=list)
    acked: list[tuple[str, str, str, Receipt]] = field(default_factory=list)  # sender, client id, text, receipt

    @property
    def conversation(self) -> Conversation:
        return self.story.conversation

    def do(self, command: tuple[Any, ...]) -> None:
        """Try a command; a refusal leaves no event."""
        attempt: Callable[..., None] = getattr(self, f"_{command[0]}")
        try:
            attempt(*command[1:])
        except DomainError:
            assert self.story.take() == []
            return
        self.events += self.story.take()

    def post(self, sender: str, client_msg_id: str, text: str) -> tuple[Receipt, bool]:
        """Post as the write side does: on `ReceiptUnknown` look it up, no further than asked, and decide again."""
        try:
            return self.story.post(sender, client_msg_id, text)
        except ReceiptUnknown as unknown:
            found = self._look_up(unknown)
            return self.story.post(sender, client_msg_id, text, looked_up=found, was_looked_up=True)

    def _look_up(self, unknown: ReceiptUnknown) -> Receipt | None:
        for event in self.events[: unknown.up_to_version]:
            match event:
                case MessagePosted(actor_id=unknown.sender_id, client_msg_id=unknown.client_msg_id):
                    return receipt_of(event)
        return None

    def _post(self, sender: str, number: int, text: str) -> None:
        receipt, duplicate = self.post(sender, f"m{number}", text)
        if not duplicate:
            self.acked.append((sender, f"m{number}", text, receipt))

    def _retry(self, place: int) -> None:
        if self.acked:
            sender, client_msg_id, text, receipt = self.acked[place % len(self.acked)]
            assert self.post(sender, client_msg_id, text) == (receipt, True)

    def _update(self, actor: str, name: str | None, post: str) -> None:
        self.story.update(actor, name=name, post=post)

    def _change(self, actor: str, add: list[str], remove: list[str], roles: dict[str, Any]) -> None:
        self.story.change(actor, add=add, remove=remove, roles=roles)


def receipt_of(event: MessagePosted) -> Receipt:
    digest = content_digest(event.body, event.reply_to, event.mentions)
    return Receipt(event.message_id, event.seq, event.originator_version, event.timestamp, digest)


def lived(kind: Kind, commands: list[tuple[Any, ...]]) -> Chronicle:
    """A conversation after these commands."""
    members = [ADMIN] if kind == "direct" else [ADMIN, "mia", "noa"]
    conversation = Conversation.create(
        ID, actor_id=OWNER, kind=kind, members=members, name=None, settings={}, now=START
    )
    chronicle = Chronicle(Story(conversation))
    chronicle.events += chronicle.story.take()
    for each in commands:
        chronicle.do(each)
    return chronicle


@given(kinds, st.lists(command, max_size=40))
def test_folding_what_was_stored_gives_the_state_that_decided_it(kind: Kind, commands: list[tuple[Any, ...]]) -> None:
    chronicle = lived(kind, commands)
    read = [stored_and_read(event) for event in chronicle.events]
    assert read == chronicle.events
    assert folded(read).state() == chronicle.conversation.state()


@given(kinds, st.lists(command, max_size=40))
def test_versions_and_seqs_have_no_hole(kind: Kind, commands: list[tuple[Any, ...]]) -> None:
    events = lived(kind, commands).events
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    messages = [event for event in events if isinstance(event, MessagePosted)]
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    ids = [message.message_id for message in messages]
    assert ids == sorted(set(ids))


@given(st.lists(command, max_size=60))
def test_no_retry_of_whatever_age_makes_a_second_message(commands: list[tuple[Any, ...]]) -> None:
    chronicle = lived("group", commands)
    posted = [(event.actor_id, event.client_msg_id) for event in chronicle.events if isinstance(event, MessagePosted)]
    assert len(posted) == len(set(posted))
    before = len(chronicle.events)
    for sender, client_msg_id, text, receipt in chronicle.acked:
        if sender in chronicle.conversation.members:
            assert chronicle.post(sender, client_msg_id, text) == (receipt, True)
    assert chronicle.story.take() == []
    assert len(chronicle.events) == before


@given(kinds, st.lists(command, max_size=30), st.lists(command, max_size=30))
def test_a_restored_conversation_goes_on_as_the_original(
    kind: Kind, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    original = lived(kind, before)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(original.conversation.state()))  # as in a snapshot
    restored = Chronicle(Story(Conversation.restore(packed)), list(original.events), list(original.acked))
    assert restored.conversation.state() == original.conversation.state()
    original.story = Story(folded(original.events))  # both tell the same time and make the same ids from here on
    for each in after:
        original.do(each)
        restored.do(each)
    assert restored.events == original.events
    assert restored.conversation.state() == original.conversation.state()


@given(st.lists(command, max_size=60))
def test_there_is_always_one_owner_while_there_are_members(commands: list[tuple[Any, ...]]) -> None:
    conversation = lived("group", commands).conversation
    owners = [user_id for user_id, member in conversation.members.items() if member.role == "owner"]
    assert len(owners) == bool(conversation.members)
    assert len(conversation._receipts) <= WINDOW


@settings(max_examples=20)
@given(st.integers(WINDOW + 1, 60), st.data())
def test_what_left_the_window_is_looked_up_only_when_it_may_be_there(count: int, data: st.DataObject) -> None:
    chronicle = lived("group", [("post", "mia", number, "hello") for number in range(count)])
    assert len(chronicle.acked) == count
    forgotten = data.draw(st.integers(0, count - WINDOW - 1))
    with pytest.raises(ReceiptUnknown):
        chronicle.story.post("mia", f"m{forgotten}")
    kept = data.draw(st.integers(count - WINDOW, count - 1))
    assert chronicle.story.post("mia", f"m{kept}") == (chronicle.acked[kept][3], True)
