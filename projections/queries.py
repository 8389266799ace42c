"""The queries: everything that is read, from the read models and nothing else, whichever tier they lie in.

Each is authorised by membership in the statement that reads, and a stranger learns nothing: whether a conversation
does not exist or is not theirs, the answer is `NotFound`, after the same time.
"""

from collections.abc import Sequence

import msgspec
from psycopg_pool import AsyncConnectionPool

from domain.messages import Receipt
from projections.hot import HotStore
from projections.pages import EventsPage, MembersPage, MemberView, MessagesPage, Positions, SearchPage
from projections.progress import Progress
from projections.reading import (
    IS_MEMBER,
    POSITIONS,
    Database,
    MinVersion,
    Row,
    no_such_conversation,
    positions_of,
)
from projections.tiers.cold import Cold
from projections.tiers.history import History, Tiered
from projections.tiers.search import Search
from streams.public import ConversationView, rfc3339

_SELECT_IS_MEMBER = f"SELECT {IS_MEMBER}"

# Of the two projections that feed it, the one that is ahead says the version.
_CONVERSATION = """
    SELECT c.kind, c.name, c.settings, c.created_by, c.created_at, greatest(h.updated_at, c.updated_at),
        greatest(h.version, c.version), coalesce(h.last_seq, 0), c.member_count
    FROM members m JOIN conversations c USING (conversation_id) LEFT JOIN heads h USING (conversation_id)
    WHERE m.conversation_id = %(id)s AND m.user_id = %(user)s"""

_MEMBERS = f"""
    SELECT user_id, role, joined_seq, joined_at FROM members
    WHERE conversation_id = %(id)s AND user_id > %(after)s AND {IS_MEMBER}
    ORDER BY user_id LIMIT %(limit)s"""

_from_json = msgspec.json.decode


class Queries:
    """Reads for one deployment.

    Args:
        pool: opened and closed by its maker.
        wait_s: how long a read waits for `min_version`.
        partitions: of the deployment; places a conversation's checkpoints.
        progress: rung by the workers of this process, if it has any.
        cold: where months go that have left Postgres; without it, Postgres has all there is.
        hot: has the newest messages; without it, Postgres is asked for them.

    All methods raise `Unavailable` when Postgres does not answer; those about a conversation raise `NotFound` for
    who is not a member, and `Unavailable` when the read models do not reach `min_version` in time.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        *,
        wait_s: float = 2.0,
        partitions: int = 1,
        progress: Progress | None = None,
        cold: Cold | None = None,
        hot: HotStore | None = None,
    ) -> None:
        self._database = Database(pool)
        self._history = History(self._database, cold, hot)
        self._search = Search(self._database, cold)
        self._versions = MinVersion(self._database, wait_s=wait_s, partitions=partitions, progress=progress)
        self._partitions = partitions

    async def conversation(self, conversation_id: int, user_id: str, *, min_version: int = 0) -> ConversationView:
        """A conversation, at the newest version applied."""
        await self._versions.reached(conversation_id, user_id, min_version)
        rows = await self._database.rows(_CONVERSATION, {"id": conversation_id, "user": user_id})
        if not rows:
            raise no_such_conversation()
        kind, name, settings, created_by, created_at, updated_at, version, last_seq, member_count = rows[0]
        return ConversationView(
            conversation_id=str(conversation_id),
            kind=kind,
            name=name,
            settings=_from_json(settings),
            created_by=created_by,
            created_at=rfc3339(created_at),
            updated_at=rfc3339(updated_at),
            version=version,
            last_seq=last_seq,
            member_count=member_count,
        )

    async def members_page(
        self, conversation_id: int, user_id: str, *, after: str | None, limit: int, min_version: int = 0
    ) -> MembersPage:
        """Members in the order of their ids, from after one of them."""
        await self._versions.reached(conversation_id, user_id, min_version)
        rows = await self._page(_MEMBERS, conversation_id, user_id, limit, after=after or "")
        members = [MemberView(user, role, seq, rfc3339(joined_at)) for user, role, seq, joined_at in rows[:limit]]
        return MembersPage(members, len(rows) > limit)

    async def messages_page(
        self,
        conversation_id: int,
        user_id: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        min_version: int = 0,
    ) -> Tiered[MessagesPage]:
        """Messages next to a seq, the nearest first to be taken; the newest when neither side is given."""
        page = await self._history.newest_messages(
            conversation_id, user_id, before=before, after=after, limit=limit, min_version=min_version
        )
        if page is not None:
            return page
        await self._versions.reached(conversation_id, user_id, min_version)
        return await self._history.messages(conversation_id, user_id, before=before, after=after, limit=limit)

    async def events_page(
        self, conversation_id: int, user_id: str, *, after: int, limit: int, min_version: int = 0
    ) -> Tiered[EventsPage]:
        """Every public event after a version, in order: encoded, the bytes that were pushed."""
        await self._versions.reached(conversation_id, user_id, min_version)
        return await self._history.events(conversation_id, user_id, after=after, limit=limit)

    async def events_after(self, conversation_id: int, *, after: int, limit: int, min_version: int = 0) -> EventsPage:
        """As `events_page`, not authorised: for the gateway, which reads on behalf of all its sessions at once and
        lets the events say who is a member."""
        await self._versions.reached(conversation_id, None, min_version)
        return (await self._history.events(conversation_id, None, after=after, limit=limit)).page

    async def search(
        self, user_id: str, text: str, *, conversation_id: int | None, before: int | None, limit: int
    ) -> Tiered[SearchPage]:
        """Messages of a user's conversations, or of one of them, that contain a text, the newest first."""
        return await self._search.messages(user_id, text, conversation_id=conversation_id, before=before, limit=limit)

    async def is_member(self, conversation_id: int, user_id: str) -> bool:
        """Whether a user is in a conversation, as far as the read model has come."""
        return bool((await self._database.rows(_SELECT_IS_MEMBER, {"id": conversation_id, "user": user_id}))[0][0])

    async def receipt(
        self, conversation_id: int, sender_id: str, client_msg_id: str, *, min_version: int
    ) -> Receipt | None:
        """The receipt of a message; `None` if none was posted up to `min_version`."""
        await self._versions.reached(conversation_id, None, min_version)
        return await self._history.receipt(conversation_id, sender_id, client_msg_id)

    async def positions(self) -> Positions:
        """How far every read model has come; 0 where one has not begun."""
        return positions_of(await self._database.rows(POSITIONS, {}), self._partitions)

    # -- reading --------------------------------------------------------------------------------------------

    async def _page(
        self, statement: str, conversation_id: int, user_id: str, limit: int, **values: object
    ) -> Sequence[Row]:
        """Rows, one more than the page if there are more. Nothing found may mean a stranger: then that is asked."""
        rows = await self._database.rows(
            statement, {"id": conversation_id, "user": user_id, "limit": limit + 1, **values}
        )
        if not rows and not await self.is_member(conversation_id, user_id):
            raise no_such_conversation()
        return rows
