"""The export of a conversation: all its messages, whichever tier they lie in, as one stream of lines."""

from collections.abc import AsyncIterator

import msgspec

from api import operations
from api.endpoint import LINES, Call, Endpoint, Lines
from api.schema import LIMIT_MAX, ExportEnd, ExportError, ExportLine, ExportQuery, MessagesQuery
from domain.errors import DomainError
from projections.pages import MessagesPage
from projections.tiers.history import Tiered

_to_json = msgspec.json.Encoder().encode


async def export(call: Call[ExportQuery, None]) -> Lines:
    # The first page before the first line: who may not read, or cannot now, gets an answer with a status.
    return Lines(_lines(call, await _page(call, call.query.after)))


async def _page(call: Call[ExportQuery, None], after: int) -> Tiered[MessagesPage]:
    query = MessagesQuery(after=after, limit=LIMIT_MAX)
    return await operations.history(call.context, call.principal, call.path["conversation_id"], query)


async def _lines(call: Call[ExportQuery, None], read: Tiered[MessagesPage]) -> AsyncIterator[bytes]:
    """Page after page, each authorised anew, each read when the one before was taken."""
    last, tiers = call.query.after, set(read.tiers)
    try:
        while True:
            for message in read.page.messages:
                yield _to_json(ExportLine(message=message)) + b"\n"
                last = message.seq
            if not read.page.has_more:
                break
            read = await _page(call, last)
            tiers |= set(read.tiers)
    except DomainError as error:
        yield _to_json(ExportLine(error=ExportError(error.code, str(error), last))) + b"\n"
    else:
        yield _to_json(ExportLine(end=ExportEnd(last, sorted(tiers, reverse=True)))) + b"\n"


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/conversations/{conversation_id}/export",
        export,
        "All messages after a seq, ascending, one JSON object a line.",
        {200: (ExportLine, "Lines with a `message`; the last has `end`, or `error` where it could not go on.")},
        query=ExportQuery,
        errors=("not_found",),
        media_type=LINES,
    ),
)
