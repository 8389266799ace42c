"""Read markers: moved by their user, shown to the others as read receipts."""

from api import operations
from api.auth import Principal
from api.context import ApiContext
from api.endpoint import Answer, Call, Endpoint
from api.schema import MoveReadRequest, ReadMarker, ReadReceiptsQuery
from commands.users import MarkerResult, MoveRead
from domain.errors import Invalid
from domain.ids import check_user_id, parse_id
from projections.pages import ReadReceiptsPage


async def move_read(
    context: ApiContext,
    principal: Principal,
    conversation_id: str,
    request: MoveReadRequest,
    *,
    correlation_id: str = "",
    trace: str = "",
) -> ReadMarker:
    """Move the user's read marker forward. One that stands further stays. Of many moves within a second only the last
    is stored, and they are answered together.

    Raises:
        NotFound: not a member. Invalid: there is no such message yet. Unavailable.
    """
    id_ = parse_id(conversation_id, field="conversation_id")
    await operations.settled(context)  # who was just put out has nothing to read here
    standing = await operations.standing(context, principal, id_)
    if request.seq > standing.last_seq:
        # Push is faster than the read models: the message may just not be there yet.
        await operations.settled(context, always=True)
        standing = await operations.standing(context, principal, id_)
        if request.seq > standing.last_seq:
            raise Invalid(f"the newest message has seq {standing.last_seq}", field="seq")
    command = MoveRead(
        actor_id=principal.user_id,
        conversation_id=id_,
        seq=request.seq,
        correlation_id=correlation_id,
        trace=trace,
    )
    result = await operations.decide(context, command, MarkerResult)
    return ReadMarker(result.conversation_id, max(result.read_seq, standing.posted_seq))


async def read(call: Call[None, MoveReadRequest]) -> Answer:
    conversation_id = call.path["conversation_id"]
    return Answer(
        await move_read(
            call.context,
            call.principal,
            conversation_id,
            call.body,
            correlation_id=call.correlation_id,
            trace=call.trace,
        )
    )


async def read_receipts(call: Call[ReadReceiptsQuery, None]) -> Answer:
    id_ = parse_id(call.path["conversation_id"], field="conversation_id")
    after = None if call.query.after is None else check_user_id(call.query.after, field="after")
    await operations.settled(call.context)
    return Answer(
        await call.context.users.read_receipts(id_, call.principal.user_id, after=after, limit=call.query.limit)
    )


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/conversations/{conversation_id}/read",
        read,
        "Move one's read marker, forward only.",
        {200: (ReadMarker, "Where it stands: there, or further if it did before.")},
        body=MoveReadRequest,
        errors=("not_found",),
        example={"seq": 17},
    ),
    Endpoint(
        "GET",
        "/v1/conversations/{conversation_id}/receipts",
        read_receipts,
        "How far the members have read, by user id.",
        {200: (ReadReceiptsPage, "A page.")},
        query=ReadReceiptsQuery,
        errors=("not_found",),
    ),
)
