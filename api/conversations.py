"""The HTTP endpoints of conversations."""

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.schema import ConversationQuery, CreateConversationRequest, UpdateConversationRequest
from streams.public import ConversationView


async def create_conversation(call: Call[None, CreateConversationRequest]) -> Answer:
    result = await operations.create_conversation(
        call.context, call.principal, call.body, correlation_id=call.correlation_id, trace=call.trace
    )
    view = result.conversation
    location = {"Location": f"/v1/conversations/{view.conversation_id}"}
    return Answer(view, 201 if result.created else 200, location)


async def conversation(call: Call[ConversationQuery, None]) -> Answer:
    return Answer(await operations.conversation(call.context, call.principal, call.path["conversation_id"], call.query))


async def update_conversation(call: Call[None, UpdateConversationRequest]) -> Answer:
    result = await operations.update_conversation(
        call.context,
        call.principal,
        call.path["conversation_id"],
        call.body,
        correlation_id=call.correlation_id,
        trace=call.trace,
    )
    return Answer(result.conversation)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/conversations",
        create_conversation,
        "Open a conversation.",
        {
            201: (ConversationView, "It is open."),
            200: (ConversationView, "It was: the direct pair's, or that of this `client_conversation_id`."),
        },
        body=CreateConversationRequest,
        example={"kind": "group", "name": "Rapids", "members": ["bob", "carol"]},
    ),
    Endpoint(
        "GET",
        "/v1/conversations/{conversation_id}",
        conversation,
        "A conversation of one's own.",
        {200: (ConversationView, "The conversation.")},
        query=ConversationQuery,
        errors=("not_found",),
    ),
    Endpoint(
        "PATCH",
        "/v1/conversations/{conversation_id}",
        update_conversation,
        "Rename a conversation or change its settings.",
        {200: (ConversationView, "As it is now.")},
        body=UpdateConversationRequest,
        errors=("forbidden", "not_found"),
        example={"name": "White water", "settings": {"post": "admins"}},
    ),
)
