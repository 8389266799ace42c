"""The HTTP endpoints of presence: asking about others, and choosing one's own status."""

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.presence import PresenceAnswer
from api.schema import PresenceRequest, SetPresenceRequest


async def presences(call: Call[None, PresenceRequest]) -> Answer:
    await operations.settled(call.context)
    return Answer(await call.context.gateway.presence.of(call.principal.user_id, call.body.users))


async def set_presence(call: Call[None, SetPresenceRequest]) -> Answer:
    await call.context.gateway.presence.set_status(call.principal.user_id, call.body.status)
    return Answer(call.body)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/presence",
        presences,
        "How users are that one shares a conversation with.",
        {200: (PresenceAnswer, "In `unknown`: those one may not know of, or who do not exist.")},
        body=PresenceRequest,
        example={"users": ["bob", "carol"]},
    ),
    Endpoint(
        "PUT",
        "/v1/presence",
        set_presence,
        "Choose one's own status, for all one's devices.",
        {200: (SetPresenceRequest, "It is chosen.")},
        body=SetPresenceRequest,
        example={"status": "busy"},
    ),
)
