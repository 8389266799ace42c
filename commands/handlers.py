"""Which handler decides which command. A new command is one more line here."""

from collections.abc import Callable
from typing import Any, TypeAlias

from commands import conversations, messages, users
from commands.command import Command, Deciding, Result

AnyCommand: TypeAlias = (
    conversations.CreateConversation
    | conversations.UpdateConversation
    | conversations.ChangeMembers
    | messages.PostMessage
    | users.BlockPair
    | users.BlockUser
    | users.ChangeOwnSettings
    | users.MoveRead
    | users.RegisterDevice
    | users.RevokeDevice
    | users.UnblockUser
    | users.UpdateProfile
)
AnyResult: TypeAlias = (
    conversations.ConversationResult
    | messages.MessageResult
    | users.BlockResult
    | users.DeviceResult
    | users.MarkerResult
    | users.OwnSettingsResult
    | users.ProfileResult
)

_HANDLERS: dict[type[Command], Callable[[Any, Deciding], Result]] = {
    conversations.CreateConversation: conversations.create_conversation,
    conversations.UpdateConversation: conversations.update_conversation,
    conversations.ChangeMembers: conversations.change_members,
    messages.PostMessage: messages.post_message,
    users.BlockPair: users.block_pair,
    users.BlockUser: users.block_user,
    users.ChangeOwnSettings: users.change_own_settings,
    users.MoveRead: users.move_read,
    users.RegisterDevice: users.register_device,
    users.RevokeDevice: users.revoke_device,
    users.UnblockUser: users.unblock_user,
    users.UpdateProfile: users.update_profile,
}


def handle(command: Command, deciding: Deciding) -> Result:
    """Decide a command. Pure but for what `deciding` collects; raises what the handlers raise."""
    return _HANDLERS[type(command)](command, deciding)
