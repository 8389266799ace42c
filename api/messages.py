"""The HTTP endpoints of messages, and of the events that are a conversation's history."""

from typing import Any, Final

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.schema import EventsQuery, MessageAck, MessagesQuery, PostMessageRequest, SearchQuery
from projections.pages import EventsPage, MessagesPage, SearchPage
from projections.tiers.history import Tiered

TIERS: Final = "Riverrun-Tiers"  # of an answer: the tiers it was read from, the fastest first


async def post_message(call: Call[None, PostMessageRequest]) -> Answer:
    result = await operations.post_message(
        call.context,
        call.principal,
        call.path["conversation_id"],
        call.body,
        correlation_id=call.correlation_id,
        trace=call.trace,
    )
    return Answer(MessageAck.of(result), 200 if result.duplicate else 201)


async def history(call: Call[MessagesQuery, None]) -> Answer:
    return _tiered(await operations.history(call.context, call.principal, call.path["conversation_id"], call.query))


async def events(call: Call[EventsQuery, None]) -> Answer:
    return _tiered(await operations.events(call.context, call.principal, call.path["conversation_id"], call.query))


async def search(call: Call[SearchQuery, None]) -> Answer:
    return _tiered(await operations.search(call.context, call.principal, call.query))


def _tiered(read: Tiered[Any]) -> Answer:
    """An answer that says which tiers it was read from."""
    return Answer(read.page, headers={TIERS: ", ".join(read.tiers)})


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/conversations/{conversation_id}/messages",
        post_message,
        "Post a message, once however often it is sent with the same `client_msg_id`.",
        {201: (MessageAck, "It is durable."), 200: (MessageAck, "It was already: the first send's ack.")},
        body=PostMessageRequest,
        errors=("forbidden", "not_found", "conflict"),
        example={"client_msg_id": "9f8a", "body": {"type": "text", "text": "hello"}},
    ),
    Endpoint(
        "GET",
        "/v1/conversations/{conversation_id}/messages",
        history,
        "Messages, ascending by seq: the newest, or those before or after a seq.",
        {200: (MessagesPage, "A page. `has_more`: there are others in the direction that was read.")},
        query=MessagesQuery,
        errors=("not_found",),
    ),
    Endpoint(
        "GET",
        "/v1/conversations/{conversation_id}/events",
        events,
        "Every event after a version, in order.",
        {200: (EventsPage, "A page.")},
        query=EventsQuery,
        errors=("not_found",),
    ),
    Endpoint(
        "GET",
        "/v1/search",
        search,
        "Messages of one's conversations that contain a text, the newest first.",
        {200: (SearchPage, "A page; `before` gives the next.")},
        query=SearchQuery,
        errors=("not_found",),
    ),
)
