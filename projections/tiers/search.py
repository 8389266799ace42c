"""Search: messages of one's own conversations that contain a text, the newest first, through the tiers as one sequence.

Without an index in the warm tier: one would be paid for by every message and used by few. What is searched is a user's
own conversations of the warm months, and that is bounded by the time that a read may take. The cold tier reads the
columns it needs of those conversations only.

Both tiers give the next matches below a message id, and the page is the highest of all: ids rise with time. The warm
tier is read before it is asked which months have left it, so what leaves in between is found twice, never missed.
"""

from collections.abc import Sequence
from typing import Any, Final

from projections.entries import message_of
from projections.pages import SearchPage
from projections.reading import IS_MEMBER, Database, Row, no_such_conversation
from projections.tiers.cold import COLUMNS, Cold
from projections.tiers.history import COLD, WARM, Tiered

_FIRST: Final = (1 << 63) - 1

_WARM: Final = """
    SELECT m.message_id, m.seq, m.version, m.sender_id, m.client_msg_id, m.created_at, m.body, m.reply_to, m.mentions,
        m.conversation_id
    FROM messages m JOIN members USING (conversation_id)
    WHERE members.user_id = %(user)s AND m.message_id < %(before)s{only}
        AND strpos(lower(m.body::json ->> 'text'), lower(%(text)s)) > 0
    ORDER BY m.message_id DESC LIMIT %(limit)s"""
_ONLY: Final = " AND m.conversation_id = %(id)s"

_MINE: Final = "SELECT conversation_id FROM members WHERE user_id = %(user)s"
_IS_MEMBER: Final = f"SELECT {IS_MEMBER}"
_MONTHS: Final = """
    SELECT DISTINCT (extract(year FROM month_start AT TIME ZONE 'UTC') * 100
        + extract(month FROM month_start AT TIME ZONE 'UTC'))::int8 FROM tier_moves WHERE model = 'messages'"""

_COLD: Final = f"""
    SELECT {COLUMNS}, conversation_id FROM messages
    WHERE conversation_id IN {{ids:Array(UInt64)}} AND toYYYYMM(created_at, 'UTC') IN {{months:Array(UInt32)}}
        AND message_id < {{before:UInt64}} AND positionCaseInsensitiveUTF8(text, {{text:String}}) > 0
    ORDER BY message_id DESC LIMIT 1 BY message_id LIMIT {{limit:UInt64}}"""


class Search:
    """Searches messages, for one deployment.

    Args:
        cold: without one, the warm tier is all there is.

    Raises `Unavailable` when Postgres does not answer in time, or when the cold tier does not and months have left.
    """

    def __init__(self, database: Database, cold: Cold | None = None) -> None:
        self._database = database
        self._cold = cold

    async def messages(
        self, user_id: str, text: str, *, conversation_id: int | None, before: int | None, limit: int
    ) -> Tiered[SearchPage]:
        """Messages that contain a text, letters' case aside, the newest first.

        Args:
            conversation_id: look in this one only.
            before: a message id: only older ones.

        Raises:
            NotFound: the user is not a member of that conversation.
        """
        values: dict[str, Any] = {
            "user": user_id,
            "id": conversation_id,
            "text": text,
            "before": _FIRST if before is None else before,
            "limit": limit + 1,
        }
        if conversation_id is not None and not (await self._database.rows(_IS_MEMBER, values))[0][0]:
            raise no_such_conversation()
        statement = _WARM.format(only="" if conversation_id is None else _ONLY)
        found = {row[0]: row for row in await self._database.rows(statement, values)}
        cold = await self._in_cold(values)
        found = {**{row[0]: row for row in cold or ()}, **found}
        rows = [found[id_] for id_ in sorted(found, reverse=True)]
        messages = [message_of(str(row[9]), row[:9]) for row in rows[:limit]]
        page = SearchPage(messages, messages[-1].message_id if len(rows) > limit else None)
        return Tiered(page, (WARM,) if cold is None else (WARM, COLD))

    async def _in_cold(self, values: dict[str, Any]) -> Sequence[Row] | None:
        """The matches in months that have left; `None` when none has."""
        if self._cold is None or not (months := [month for (month,) in await self._database.rows(_MONTHS, {})]):
            return None
        ids = [values["id"]] if values["id"] else [id_ for (id_,) in await self._database.rows(_MINE, values)]
        if not ids:
            return None
        asked = {name: values[name] for name in ("before", "text", "limit")}
        return await self._cold.rows_of(_COLD, {**asked, "ids": ids, "months": months})
