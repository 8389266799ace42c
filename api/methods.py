"""The methods of a WebSocket session, after `connect`: what each takes, in what order it is answered, and who answers.

Each is the twin of an HTTP call and shares its work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET, Struct

from api import inbox, markers, operations
from api.auth import Principal
from api.context import ApiContext
from api.envelope import (
    EventsRequest,
    HistoryRequest,
    PingRequest,
    PresenceMethod,
    ReadRequest,
    SendRequest,
    TypingRequest,
)
from api.presence import PresenceAnswer
from api.schema import ReadMarker, SyncQuery
from api.sessions import Session
from commands.messages import MessageResult
from domain.ids import parse_id
from projections.pages import EventsPage, MessagesPage, SyncPage


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what for its work the answer may use."""

    context: ApiContext
    principal: Principal
    session: Session
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method.

    Attributes:
        shape: of its parameters.
        answer: a future that is on its way already, or a coroutine, which is ended with the session.
        lane: what its answers are in order with: those of one conversation, or of one method.
    """

    shape: type[Struct]
    answer: Callable[[Caller, Any], Awaitable[Any]]  # Any: of the method's shape
    lane: Callable[[Any], str]


def _send(caller: Caller, request: SendRequest) -> "asyncio.Future[MessageResult]":
    return operations.post_message(
        caller.context,
        caller.principal,
        request.conversation_id,
        request,
        correlation_id=caller.correlation_id,
    )


async def _read(caller: Caller, request: ReadRequest) -> ReadMarker:
    return await markers.move_read(
        caller.context,
        caller.principal,
        request.conversation_id,
        request,
        correlation_id=caller.correlation_id,
    )


async def _typing(caller: Caller, request: TypingRequest) -> PingRequest:
    conversation_id = parse_id(request.conversation_id, field="conversation_id")
    await caller.context.gateway.typing.typing(caller.session, conversation_id, active=request.active)
    return _NOTHING


async def _presence(caller: Caller, request: PresenceMethod) -> PresenceAnswer:
    presence = caller.context.gateway.presence
    if request.status is not UNSET:
        await presence.set_status(caller.session.user_id, request.status)
    if request.unsubscribe is not UNSET:
        presence.unwatch(caller.session, request.unsubscribe)
    if request.subscribe is UNSET:
        return PresenceAnswer([], [])
    await operations.settled(caller.context)  # whom one was just put together with
    return await presence.watch(caller.session, request.subscribe)


async def _sync(caller: Caller, request: SyncQuery) -> SyncPage:
    return await inbox.sync_page(caller.context, caller.principal, request)


async def _history(caller: Caller, request: HistoryRequest) -> MessagesPage:
    return (await operations.history(caller.context, caller.principal, request.conversation_id, request)).page


async def _events(caller: Caller, request: EventsRequest) -> EventsPage:
    return (await operations.events(caller.context, caller.principal, request.conversation_id, request)).page


async def _ping(_caller: Caller, request: PingRequest) -> PingRequest:
    return request


def _conversation(request: Any) -> str:
    return str(request.conversation_id)


_NOTHING: Final = PingRequest()  # an answer that says no more than that it was done

METHODS: Final[Mapping[str, Method]] = {
    "send": Method(SendRequest, _send, _conversation),
    "read": Method(ReadRequest, _read, lambda request: f"read {request.conversation_id}"),
    "typing": Method(TypingRequest, _typing, lambda _: "typing"),
    "presence": Method(PresenceMethod, _presence, lambda _: "presence"),
    "sync": Method(SyncQuery, _sync, lambda _: "sync"),
    "history": Method(HistoryRequest, _history, _conversation),
    "events": Method(EventsRequest, _events, _conversation),
    "ping": Method(PingRequest, _ping, lambda _: "ping"),
}
