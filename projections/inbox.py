"""Inboxes from Postgres: the truth that the hot store is filled from, and what answers when there is no hot store."""

import base64
import binascii
import struct
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from psycopg_pool import AsyncConnectionPool

from domain.errors import Invalid
from projections.entries import (
    MESSAGE_COLUMNS,
    MINE,
    MY_JOINS,
    OWN_COLUMNS,
    UPDATED_AT_MS,
    Head,
    Own,
    inbox_entry,
    message_of,
    read_heads,
    read_own,
    read_ranks,
)
from projections.pages import Inbox, Positions
from projections.reading import POSITIONS, Database, Snapshot, positions_of
from streams.public import Message

# When a conversation was updated, in Unix milliseconds, and its id: the order of an inbox, newest first, without ties.
Place = tuple[int, int]

_PLACE = struct.Struct(">qq")
_TOP: Place = ((1 << 63) - 1, (1 << 63) - 1)

_PAGE = f"""
    {MINE}
    SELECT m.conversation_id, {UPDATED_AT_MS} AS updated_at_ms, {OWN_COLUMNS}
    FROM mine m JOIN heads h ON h.conversation_id = m.conversation_id {MY_JOINS}
    WHERE (%(hidden)s OR NOT coalesce(s.hidden, false))
        AND ({UPDATED_AT_MS}, m.conversation_id) < (%(at_ms)s, %(id)s)
    ORDER BY updated_at_ms DESC, m.conversation_id DESC LIMIT %(limit)s"""

_NEWEST = f"""
    SELECT {MESSAGE_COLUMNS}
    FROM messages WHERE conversation_id = %(id)s ORDER BY seq DESC LIMIT %(limit)s"""


class InboxQueries:
    """Reads inboxes for one deployment.

    Args:
        pool: opened and closed by its maker.
        partitions: of the deployment.

    All methods raise `Unavailable` when Postgres does not answer. Those that give `Positions` give what the read
    models had at least, when the rest was read.
    """

    def __init__(self, pool: AsyncConnectionPool, *, partitions: int = 1) -> None:
        self._database = Database(pool)
        self._partitions = partitions

    async def page(self, user_id: str, *, limit: int, page: str | None = None, hidden: bool = False) -> Inbox:
        """A user's conversations, the newest first.

        Args:
            page: `Inbox.page` of the page before.
            hidden: whether those the user has hidden are given as well.

        Raises:
            Invalid: `page` is not one that was given out.
        """
        at_ms, id_ = _TOP if page is None else place_of(page)
        values = {"user": user_id, "hidden": hidden, "at_ms": at_ms, "id": id_, "limit": limit + 1}
        async with self._snapshot() as (snapshot, positions):
            rows = await snapshot.rows(_PAGE, values)
            heads = await read_heads(snapshot, [row[0] for row in rows[:limit]])
        now = now_ms()
        entries = [inbox_entry(row[0], heads[row[0]], Own(*row[2:]), user_id, now) for row in rows[:limit]]
        after = (rows[limit - 1][1], rows[limit - 1][0]) if len(rows) > limit else None
        return Inbox(entries, positions.cursor(user_id), after and page_of(after))

    # -- the parts, for the hot store -----------------------------------------------------------------------

    async def own(self, user_id: str) -> tuple[Positions, dict[int, Own]]:
        """A user's own part of all conversations they are in."""
        async with self._snapshot() as (snapshot, positions):
            return positions, await read_own(snapshot, user_id)

    async def ranks(self, conversation_ids: Iterable[int]) -> tuple[Positions, dict[int, int]]:
        """When conversations were updated, in Unix milliseconds."""
        async with self._snapshot() as (snapshot, positions):
            return positions, await read_ranks(snapshot, conversation_ids)

    async def heads(self, conversation_ids: Iterable[int]) -> tuple[Positions, dict[int, Head]]:
        """The heads of conversations."""
        async with self._snapshot() as (snapshot, positions):
            return positions, await read_heads(snapshot, conversation_ids)

    async def newest_messages(self, conversation_id: int, limit: int) -> tuple[Positions, list[Message]]:
        """The newest messages of a conversation, ascending, as far back as none has left the warm tier."""
        async with self._snapshot() as (snapshot, positions):
            rows = await snapshot.rows(_NEWEST, {"id": conversation_id, "limit": limit})
        newest = [row for place, row in enumerate(rows) if row[1] == rows[0][1] - place]
        return positions, [message_of(str(conversation_id), row) for row in reversed(newest)]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[Snapshot, Positions]]:
        async with self._database.snapshot() as snapshot:
            yield snapshot, positions_of(await snapshot.rows(POSITIONS, {}), self._partitions)


def page_of(place: Place) -> str:
    """The token of the page after a place."""
    return base64.urlsafe_b64encode(_PLACE.pack(*place)).rstrip(b"=").decode()


def place_of(page: str) -> Place:
    """The place that a page comes after.

    Raises:
        Invalid: it is not a token of `page_of`.
    """
    try:
        at_ms, id_ = _PLACE.unpack(base64.b64decode(page.encode() + b"==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, struct.error):
        raise Invalid("a page is what an earlier answer named", field="page") from None
    if page_of((at_ms, id_)) != page:
        raise Invalid("a page is what an earlier answer named", field="page")
    return at_ms, id_


def now_ms() -> int:
    """The time, in Unix milliseconds."""
    return time.time_ns() // 1_000_000
