"""The HTTP endpoint of a user's own settings of a conversation: muted until, pinned, hidden."""

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.schema import OwnSettingsChange
from commands.users import ChangeOwnSettings, OwnSettingsResult
from domain.ids import parse_id
from projections.pages import OwnSettings


async def change_own_settings(call: Call[None, OwnSettingsChange]) -> Answer:
    conversation_id = parse_id(call.path["conversation_id"], field="conversation_id")
    await operations.settled(call.context)
    await operations.standing(call.context, call.principal, conversation_id)
    command = ChangeOwnSettings(
        actor_id=call.principal.user_id,
        conversation_id=conversation_id,
        muted_until=call.body.muted_until,
        pinned=call.body.pinned,
        hidden=call.body.hidden,
        correlation_id=call.correlation_id,
        trace=call.trace,
    )
    result = await operations.decide(call.context, command, OwnSettingsResult)
    return Answer(OwnSettings(result.muted_until, result.pinned, result.hidden))


ENDPOINTS = (
    Endpoint(
        "PATCH",
        "/v1/conversations/{conversation_id}/settings",
        change_own_settings,
        "Mute, pin or hide a conversation for oneself. (What its owner sets is changed with the conversation.)",
        {200: (OwnSettings, "As they are now.")},
        body=OwnSettingsChange,
        errors=("not_found",),
        example={"muted_until": "2026-12-01T08:00:00Z", "pinned": True},
    ),
)
