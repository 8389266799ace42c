"""The inbox, and what happened since a cursor (`sync`): how a client becomes current by pulling."""

from api import operations
from api.auth import Principal
from api.context import ApiContext
from api.endpoint import Answer, Call, Endpoint
from api.schema import InboxQuery, SyncQuery
from projections.pages import InboxPage, SyncPage
from streams.cursor import BadCursor, Cursor


async def inbox_page(context: ApiContext, principal: Principal, query: InboxQuery) -> InboxPage:
    """A page of a user's conversations, the newest first.

    Raises:
        Invalid: no such page. Unavailable.
    """
    user_id = principal.user_id
    inbox = await context.hot.page(
        user_id,
        limit=query.limit,
        page=query.page,
        hidden=query.hidden == "true",
        at_least=await operations.settled(context),
    )
    return InboxPage(inbox.conversations, context.gateway.sealed(inbox.cursor, user_id), inbox.page)


async def sync_page(context: ApiContext, principal: Principal, query: SyncQuery) -> SyncPage:
    """What happened in a user's conversations since a cursor; without one, since ever.

    A cursor that cannot be used (forged, cut, another user's, another deployment's, of a future that this log has not
    had) is answered with `reset`.

    Raises:
        Unavailable.
    """
    user_id = principal.user_id
    await operations.settled(context, always=True)
    positions = await context.queries.positions()
    now = positions.cursor(user_id)
    try:
        cursor = context.gateway.unsealed(query.cursor, user_id) if query.cursor else Cursor((0,) * len(now.positions))
    except BadCursor:
        cursor = None
    if cursor is None or not now.reaches(cursor):
        return SyncPage([], [], context.gateway.sealed(now, user_id), done=True, reset=True)
    synced = await context.sync.sync(user_id, cursor, limit=query.limit, events_max=query.events)
    token = context.gateway.sealed(synced.cursor, user_id)
    return SyncPage(synced.conversations, synced.left, token, done=synced.done, reset=False)


async def inbox(call: Call[InboxQuery, None]) -> Answer:
    return Answer(await inbox_page(call.context, call.principal, call.query))


async def sync(call: Call[SyncQuery, None]) -> Answer:
    return Answer(await sync_page(call.context, call.principal, call.query))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/inbox",
        inbox,
        "One's conversations, the newest first, with what is unread.",
        {200: (InboxPage, "A page, and the cursor from which `sync` and push go on.")},
        query=InboxQuery,
    ),
    Endpoint(
        "GET",
        "/v1/sync",
        sync,
        "What happened since a cursor, in all conversations at once.",
        {200: (SyncPage, "Until `done`; `reset`: start again from the inbox.")},
        query=SyncQuery,
    ),
)
