"""Commands about messages."""

from commands.command import Command, Deciding, Result
from domain.conversations import Conversation
from domain.ids import pair_key, slot_of
from streams.public import rfc3339


class MessageResult(Result, frozen=True, kw_only=True):
    """The ack of a message: durable in the log at `seq`. `duplicate`: this is an earlier send's ack."""

    message_id: str
    conversation_id: str
    seq: int
    version: int
    created_at: str
    duplicate: bool


class PostMessage(Command, frozen=True, kw_only=True):
    """Post a text message; idempotent by (`actor_id`, `client_msg_id`) for ever."""

    conversation_id: int
    client_msg_id: str
    text: str
    reply_to: int | None = None
    mentions: list[str] = []

    @property
    def slot(self) -> int:
        return slot_of(self.conversation_id)

    @property
    def lane(self) -> str:
        return str(self.conversation_id)

    @property
    def repeatable(self) -> bool:
        return True


def post_message(command: PostMessage, deciding: Deciding) -> MessageResult:
    conversation = deciding.conversation(command.conversation_id)
    found, was_looked_up = deciding.looked_up(command.actor_id, command.client_msg_id)
    receipt, duplicate = conversation.post_message(
        actor_id=command.actor_id,
        client_msg_id=command.client_msg_id,
        text=command.text,
        reply_to=command.reply_to,
        mentions=command.mentions,
        new_id=lambda: deciding.new_id(command.slot),
        now=deciding.now,
        blocked=_blocked(conversation, deciding),
        looked_up=found,
        was_looked_up=was_looked_up,
    )
    return MessageResult(
        message_id=str(receipt.message_id),
        conversation_id=conversation.id,
        seq=receipt.seq,
        version=receipt.version,
        created_at=rfc3339(receipt.created_at),
        duplicate=duplicate,
    )


def _blocked(conversation: Conversation, deciding: Deciding) -> bool:
    if conversation.kind != "direct":
        return False
    pair = deciding.pair(pair_key(*conversation.members).value)
    return pair is not None and pair.blocks
