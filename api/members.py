"""The HTTP endpoints of a conversation's members."""

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.schema import ChangeMembersRequest, MembersQuery
from projections.pages import MembersPage
from streams.public import ConversationView


async def members(call: Call[MembersQuery, None]) -> Answer:
    return Answer(await operations.members(call.context, call.principal, call.path["conversation_id"], call.query))


async def change_members(call: Call[None, ChangeMembersRequest]) -> Answer:
    result = await operations.change_members(
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
        "GET",
        "/v1/conversations/{conversation_id}/members",
        members,
        "Members, by user id.",
        {200: (MembersPage, "A page.")},
        query=MembersQuery,
        errors=("not_found",),
    ),
    Endpoint(
        "POST",
        "/v1/conversations/{conversation_id}/members",
        change_members,
        "Add and remove members and give roles, all or nothing. Anybody may remove themselves.",
        {200: (ConversationView, "The conversation as it is now.")},
        body=ChangeMembersRequest,
        errors=("forbidden", "not_found"),
        example={"add": ["dave"], "remove": ["bob"], "roles": {"carol": "admin"}},
    ),
)
