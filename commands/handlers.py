"""Which handler decides which command. A new command is one more line here."""

from collections.abc import Callable
from typing import Any, TypeAlias

from commands import conversations, messages
from commands.command import Command, Deciding, Result

AnyCommand: TypeAlias = (
    conversations.CreateConversation
    | conversations.UpdateConversation
    | conversations.ChangeMembers
    | messages.PostMessage
)
AnyResult: TypeAlias = conversations.ConversationResult | messages.MessageResult

_HANDLERS: dict[type[Command], Callable[[Any, Deciding], Result]] = {
    conversations.CreateConversation: conversations.create_conversation,
    conversations.UpdateConversation: conversations.update_conversation,
    conversations.ChangeMembers: conversations.change_members,
    messages.PostMessage: messages.post_message,
}


def handle(command: Command, deciding: Deciding) -> Result:
    """Decide a command. Pure but for what `deciding` collects; raises what the handlers raise."""
    return _HANDLERS[type(command)](command, deciding)
