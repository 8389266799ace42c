"""The admins' doors into the past: a conversation, a membership and an inbox as they were, folded from the log.

Whoever has the scope `admin` is shown everybody's. Each look leaves a line in the process's log: who looked at what.
"""

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

from api.endpoint import Answer, Call, Endpoint
from api.errors import RateLimited
from api.schema import PastConversationQuery, PastInboxQuery, PastMembershipQuery
from domain.errors import Forbidden, Unavailable
from domain.ids import check_user_id, parse_id
from projections.past.moment import Moment
from projections.past.views import PastConversationView, PastInbox, PastMembership
from streams.ports import LogUnavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def past_conversation(call: Call[PastConversationQuery, None]) -> Answer:
    _check_admin(call)
    id_ = parse_id(call.path["conversation_id"], field="conversation_id")
    moment = Moment.of(call.query.at, call.query.version)
    after = None if call.query.after is None else check_user_id(call.query.after, field="after")
    asking = call.context.past.conversation(id_, moment, after=after, limit=call.query.limit)
    return Answer(await _looked(call, asking, conversation_id=str(id_), moment=str(moment)))


async def past_membership(call: Call[PastMembershipQuery, None]) -> Answer:
    _check_admin(call)
    id_ = parse_id(call.path["conversation_id"], field="conversation_id")
    user_id = check_user_id(call.path["user_id"])
    moment = Moment.of(call.query.at, call.query.version)
    asking = call.context.past.membership(id_, user_id, moment)
    return Answer(await _looked(call, asking, conversation_id=str(id_), of_user_id=user_id, moment=str(moment)))


async def past_inbox(call: Call[PastInboxQuery, None]) -> Answer:
    _check_admin(call)
    user_id, query = check_user_id(call.path["user_id"]), call.query
    moment = Moment.of(query.at, None)
    assert moment.at is not None
    hidden = query.hidden == "true"
    asking = call.context.past.inbox(user_id, moment.at, limit=query.limit, page=query.page, hidden=hidden)
    return Answer(await _looked(call, asking, of_user_id=user_id, moment=str(moment)))


def _check_admin(call: Call[Any, None]) -> None:
    if not call.principal.admin:
        raise Forbidden("a token with the scope admin is expected")


async def _looked(call: Call[Any, None], asking: Coroutine[Any, Any, T], **about: str) -> T:
    """What is answered, when it is this question's turn.

    Raises:
        RateLimited: too many are folded here already. Unavailable: the log, or its archive, does not answer.
    """
    turns: Final = call.context.past_turns
    if turns.locked():
        asking.close()
        raise RateLimited("others ask for the past here already", retry_after_s=1)
    async with turns:
        # Before it is looked at: also a look that finds nothing, or is broken off, is one.
        log.info("an admin looks at the past", user_id=call.principal.user_id, **about)
        try:
            return await asking
        except LogUnavailable as error:
            raise Unavailable(f"the log cannot be read: {error}") from error


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/v1/admin/conversations/{conversation_id}",
        past_conversation,
        "A conversation as it was at a time or a version. For tokens with the scope `admin`.",
        {200: (PastConversationView, "The conversation, a page of its members, and its newest message then.")},
        query=PastConversationQuery,
        errors=("forbidden", "not_found"),
    ),
    Endpoint(
        "GET",
        "/v1/admin/conversations/{conversation_id}/members/{user_id}",
        past_membership,
        "What a conversation was to a user, at a time or a version. For tokens with the scope `admin`.",
        {200: (PastMembership, "The membership; `is_member` says whether there was one.")},
        query=PastMembershipQuery,
        errors=("forbidden", "not_found"),
    ),
    Endpoint(
        "GET",
        "/v1/admin/users/{user_id}/inbox",
        past_inbox,
        "A user's inbox as it was at a time. For tokens with the scope `admin`.",
        {200: (PastInbox, "A page of it, the newest conversation first.")},
        query=PastInboxQuery,
        errors=("forbidden",),
    ),
)
