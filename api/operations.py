"""What HTTP and WebSocket both do, so that they do it alike: commands go to the dispatcher, reads to the queries.

Every function is authorised by what it calls: the aggregate and the queries know the members.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar, cast

from msgspec import UNSET

from api.auth import Principal
from api.context import ApiContext
from api.schema import (
    ChangeMembersRequest,
    ConversationQuery,
    CreateConversationRequest,
    EventsQuery,
    MembersQuery,
    MessagesQuery,
    PostMessageRequest,
    SearchQuery,
    UpdateConversationRequest,
)
from commands.command import Command, Result
from commands.conversations import ChangeMembers, ConversationResult, CreateConversation, UpdateConversation
from commands.messages import MessageResult, PostMessage
from domain.errors import DomainError, Invalid, NotFound, Unavailable
from domain.ids import check_user_id, parse_id
from projections.pages import EventsPage, MembersPage, MessagesPage, Positions, SearchPage, Standing
from projections.tiers.history import Tiered
from streams.public import ConversationView

SETTLED_S: Final = 1.0  # the read models are milliseconds behind; more only under a flood

T = TypeVar("T")
R = TypeVar("R", bound=Result)


def post_message(
    context: ApiContext,
    principal: Principal,
    conversation_id: str,
    request: PostMessageRequest,
    *,
    correlation_id: str = "",
    trace: str = "",
) -> "asyncio.Future[MessageResult]":
    """Post a message; idempotent by (user, `client_msg_id`).

    Not a coroutine: the command is on its way when this returns, so messages are decided in the order of
    the calls. Every error comes through the future, also that of a malformed id.

    Raises (through the future):
        DomainError.
    """
    try:
        command = PostMessage(
            actor_id=principal.user_id,
            conversation_id=parse_id(conversation_id, field="conversation_id"),
            client_msg_id=request.client_msg_id,
            text=request.body.text,
            reply_to=None if request.reply_to is None else parse_id(request.reply_to, field="reply_to"),
            mentions=request.mentions,
            correlation_id=correlation_id,
            trace=trace,
        )
    except DomainError as refusal:
        refused: asyncio.Future[MessageResult] = asyncio.get_running_loop().create_future()
        refused.set_exception(refusal)
        return refused
    future = cast("asyncio.Future[MessageResult]", context.dispatcher.dispatch(command))

    def note(done: "asyncio.Future[MessageResult]") -> None:
        if not done.cancelled() and done.exception() is None:
            context.recent_writes.note(command.conversation_id, done.result().version, (principal.user_id,))
            context.recent_writes.wrote()

    # The first callback of the future: noted before whoever awaits it is woken.
    future.add_done_callback(note)
    return future


async def create_conversation(
    context: ApiContext,
    principal: Principal,
    request: CreateConversationRequest,
    *,
    correlation_id: str = "",
    trace: str = "",
) -> ConversationResult:
    """Open a conversation, or find the direct pair's, or that of a repeated `client_conversation_id`.

    Raises:
        DomainError.
    """
    command = CreateConversation(
        actor_id=principal.user_id,
        kind=request.kind,
        members=request.members,
        placement=context.random_slot(),
        name=request.name,
        settings=request.settings.as_dict(),
        client_conversation_id=request.client_conversation_id,
        correlation_id=correlation_id,
        trace=trace,
    )
    return await _changed(context, command, (principal.user_id, *request.members))


async def update_conversation(
    context: ApiContext,
    principal: Principal,
    conversation_id: str,
    request: UpdateConversationRequest,
    *,
    correlation_id: str = "",
    trace: str = "",
) -> ConversationResult:
    """Rename a conversation or change its settings.

    Raises:
        DomainError.
    """
    command = UpdateConversation(
        actor_id=principal.user_id,
        conversation_id=parse_id(conversation_id, field="conversation_id"),
        name=None if request.name is UNSET else request.name,
        settings=request.settings.as_dict(),
        correlation_id=correlation_id,
        trace=trace,
    )
    return await _changed(context, command, (principal.user_id,))


async def change_members(
    context: ApiContext,
    principal: Principal,
    conversation_id: str,
    request: ChangeMembersRequest,
    *,
    correlation_id: str = "",
    trace: str = "",
) -> ConversationResult:
    """Add, remove and promote members, all or nothing.

    Raises:
        DomainError.
    """
    command = ChangeMembers(
        actor_id=principal.user_id,
        conversation_id=parse_id(conversation_id, field="conversation_id"),
        add=request.add,
        remove=request.remove,
        roles={check_user_id(user_id, field="roles"): role for user_id, role in request.roles.items()},
        correlation_id=correlation_id,
        trace=trace,
    )
    return await _changed(context, command, {principal.user_id, *request.add} - set(request.remove))


async def conversation(
    context: ApiContext, principal: Principal, conversation_id: str, query: ConversationQuery
) -> ConversationView:
    """A conversation.

    Raises:
        NotFound: not a member. Unavailable: not at `min_version` in time.
    """
    id_ = parse_id(conversation_id, field="conversation_id")
    return await _read(
        context,
        principal,
        id_,
        query.min_version,
        lambda version: context.queries.conversation(id_, principal.user_id, min_version=version),
    )


async def members(context: ApiContext, principal: Principal, conversation_id: str, query: MembersQuery) -> MembersPage:
    """A page of members, by user id.

    Raises:
        Invalid, NotFound, Unavailable.
    """
    id_ = parse_id(conversation_id, field="conversation_id")
    after = None if query.after is None else check_user_id(query.after, field="after")
    return await _read(
        context,
        principal,
        id_,
        query.min_version,
        lambda version: context.queries.members_page(
            id_, principal.user_id, after=after, limit=query.limit, min_version=version
        ),
    )


async def history(
    context: ApiContext, principal: Principal, conversation_id: str, query: MessagesQuery
) -> Tiered[MessagesPage]:
    """A page of messages, ascending.

    Raises:
        Invalid: both `before` and `after`. NotFound, Unavailable.
    """
    id_ = parse_id(conversation_id, field="conversation_id")
    if query.before is not None and query.after is not None:
        raise Invalid("before or after, not both", field="after")
    return await _read(
        context,
        principal,
        id_,
        query.min_version,
        lambda version: context.queries.messages_page(
            id_,
            principal.user_id,
            before=query.before,
            after=query.after,
            limit=query.limit,
            min_version=version,
        ),
    )


async def events(
    context: ApiContext, principal: Principal, conversation_id: str, query: EventsQuery
) -> Tiered[EventsPage]:
    """A page of events, by version: how a gap is filled.

    Raises:
        Invalid, NotFound, Unavailable.
    """
    id_ = parse_id(conversation_id, field="conversation_id")
    return await _read(
        context,
        principal,
        id_,
        query.min_version,
        lambda version: context.queries.events_page(
            id_, principal.user_id, after=query.after, limit=query.limit, min_version=version
        ),
    )


async def search(context: ApiContext, principal: Principal, query: SearchQuery) -> Tiered[SearchPage]:
    """Messages that contain a text, the newest first.

    Raises:
        Invalid, NotFound, Unavailable.
    """
    id_ = None if query.conversation_id is None else parse_id(query.conversation_id, field="conversation_id")
    before = None if query.before is None else parse_id(query.before, field="before")
    if "\0" in query.q:
        raise Invalid("no message has a NUL", field="q")
    await settled(context)
    return await context.queries.search(
        principal.user_id, query.q, conversation_id=id_, before=before, limit=query.limit
    )


async def standing(context: ApiContext, principal: Principal, conversation_id: int) -> Standing:
    """What a conversation is to a member of it.

    Raises:
        NotFound: not a member. Unavailable.
    """
    return await _read(
        context,
        principal,
        conversation_id,
        0,
        lambda version: context.users.standing(conversation_id, principal.user_id, min_version=version),
    )


async def decide(context: ApiContext, command: Command, kind: type[R]) -> R:
    """Have a command decided; reads that come after this see what it wrote.

    Args:
        kind: of its result.

    Raises:
        DomainError.
    """
    result = await context.dispatcher.dispatch(command)
    context.recent_writes.wrote()
    assert isinstance(result, kind)
    return result


async def settled(context: ApiContext, *, always: bool = False) -> Positions | None:
    """Wait, for a second at most, until what was written through this process can be read.

    Args:
        always: wait for what others have written before, too.

    Returns:
        Where the read models then are; `None` when there was nothing to wait for, or it did not come.
    """
    mark = context.recent_writes.unsettled
    if mark is None and not always:
        return None
    try:
        async with asyncio.timeout(SETTLED_S):
            positions = await context.gateway.tail.caught_up()
    except (Unavailable, TimeoutError):
        return None  # an older answer is better than none
    context.recent_writes.settle(mark or 0)
    return positions


async def _changed(context: ApiContext, command: Command, users: Iterable[str]) -> ConversationResult:
    """Decide a command about a conversation; those it concerns will read what it wrote."""
    result: ConversationResult = await decide(context, command, ConversationResult)
    view = result.conversation
    context.recent_writes.note(int(view.conversation_id), view.version, users)
    return result


async def _read(
    context: ApiContext,
    principal: Principal,
    conversation_id: int,
    min_version: int,
    query: Callable[[int], Awaitable[T]],
) -> T:
    """Read at what the client asks for; and, if that can be had in time, at what the user has just written."""
    recent = context.recent_writes.version_of(conversation_id, principal.user_id)
    if recent > min_version:
        try:
            answer = await query(recent)
        except NotFound:  # they have left since
            context.recent_writes.forget(conversation_id, principal.user_id, recent)
            raise
        except Unavailable:
            return await query(min_version)
        context.recent_writes.was_read(conversation_id, principal.user_id, recent)
        return answer
    return await query(min_version)
