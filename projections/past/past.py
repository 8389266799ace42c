"""Asking for the past."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from domain.errors import NotFound, Unavailable
from domain.users import User
from projections.entries import Head, Own, inbox_entry
from projections.inbox import page_of, place_of
from projections.pages import InboxEntry, MemberView
from projections.past.folding import Budget, PastConversation, Place, past_conversation, past_user
from projections.past.moment import Moment
from projections.past.views import AsOf, PastConversationView, PastInbox, PastMembership
from projections.reading import POSITIONS, Database, positions_of
from streams import subjects
from streams.moments import first_since
from streams.ports import Log
from streams.public import message_of, rfc3339, view_of

# Whoever was ever in a conversation is in it still, or has left it: what was when, the log says.
_EVER_IN: Final = """
    SELECT conversation_id FROM members WHERE user_id = %(user)s
    UNION SELECT conversation_id FROM departures WHERE user_id = %(user)s"""

_to_json = msgspec.json.Encoder().encode


class Past:
    """Folds the log of one deployment.

    Args:
        log: with the archive it continues in.
        database: says which conversations a user was ever in, and nothing else.
        events_max: how many events one question may fold.

    All methods raise `Invalid` when that is too few, and `Unavailable` or `LogUnavailable` when it cannot be read.
    """

    def __init__(self, log: Log, database: Database, *, partitions: int, events_max: int) -> None:
        self._log = log
        self._database = database
        self._partitions = partitions
        self._events_max = events_max

    async def conversation(
        self, conversation_id: int, moment: Moment, *, after: str | None = None, limit: int
    ) -> PastConversationView:
        """A conversation as it was.

        Args:
            after, limit: of the page of members, by user id.

        Raises:
            NotFound: there was none. Invalid: it has no such version.
        """
        past = await self._conversation(conversation_id, moment, Budget(self._events_max))
        users = sorted(user_id for user_id in past.conversation.members if after is None or user_id > after)
        return PastConversationView(
            _as_of(past),
            view_of(past.conversation),
            [_member(past, user_id) for user_id in users[:limit]],
            len(users) > limit,
            None if past.last_message is None else message_of(past.last_message),
        )

    async def membership(self, conversation_id: int, user_id: str, moment: Moment) -> PastMembership:
        """What a conversation was to a user. As of a version: when that was decided.

        Raises:
            NotFound: there was no such conversation. Invalid: it has no such version.
        """
        budget = Budget(self._events_max)
        past = await self._conversation(conversation_id, moment, budget)
        user = await self._user(user_id, moment.at or past.place.at, budget)
        left = past.departed.get(user_id)
        named = PastMembership(
            *(_as_of(past), str(conversation_id), user_id, False),
            left_at=left and rfc3339(left.at),
            left_version=left and left.version,
        )
        if user_id not in past.joined:
            return named
        entry, joined = _entry(past, user_id, user, moment.at or past.place.at), past.joined[user_id]
        return msgspec.structs.replace(
            named,
            is_member=True,
            role=past.conversation.members[user_id].role,
            joined_at=rfc3339(joined.at),
            joined_version=joined.version,
            **{
                name: getattr(entry, name)
                for name in ("joined_seq", "read_seq", "unread", "muted_until", "pinned", "hidden")
            },
        )

    async def inbox(
        self, user_id: str, at: datetime, *, limit: int, page: str | None = None, hidden: bool = False
    ) -> PastInbox:
        """A user's conversations, the newest first.

        Args:
            page: `PastInbox.page` of the page before, for the same time.
            hidden: whether those that were hidden are given as well.

        Raises:
            Invalid: `page` is not one that was given out.
        """
        after = None if page is None else place_of(page)
        budget, moment = Budget(self._events_max), Moment(at=at)
        await self._check_covered(at)
        user = await self._user(user_id, at, budget)
        ranked: list[tuple[tuple[int, int], InboxEntry]] = []
        for (conversation_id,) in await self._database.rows(_EVER_IN, {"user": user_id}):
            try:
                past = await self._conversation(conversation_id, moment, budget)
            except NotFound:  # it came later
                continue
            if user_id in past.joined:
                entry = _entry(past, user_id, user, at)
                if hidden or not entry.hidden:
                    ranked.append(((_ms(past.place.at), conversation_id), entry))
        ranked.sort(key=lambda one: one[0], reverse=True)
        left = [one for one in ranked if after is None or one[0] < after]
        more = page_of(left[limit - 1][0]) if len(left) > limit else None
        return PastInbox(user_id, rfc3339(at), [entry for _, entry in left[:limit]], more)

    async def _check_covered(self, at: datetime) -> None:
        """Be sure that the read models know of every conversation that was by then.

        Raises:
            Unavailable: they do not, yet.
        """
        positions = positions_of(await self._database.rows(POSITIONS, {}), self._partitions)
        for partition, position in enumerate(positions.conversations):
            stream = subjects.stream(subjects.CONV, partition)
            if position >= await self._log.last_sequence(stream):
                continue
            if position + 1 < await first_since(self._log, stream, _ms(at) + 1):
                raise Unavailable(f"the read models have not come to {rfc3339(at)} yet; try again")

    async def _conversation(self, conversation_id: int, moment: Moment, budget: Budget) -> PastConversation:
        return await past_conversation(self._log, conversation_id, moment, budget, partitions=self._partitions)

    async def _user(self, user_id: str, at: datetime, budget: Budget) -> User | None:
        return await past_user(self._log, user_id, Moment(at=at), budget, partitions=self._partitions)


def _as_of(past: PastConversation) -> AsOf:
    place: Place = past.place
    return AsOf(place.version, rfc3339(place.at), place.stream, place.sequence)


def _member(past: PastConversation, user_id: str) -> MemberView:
    member = past.conversation.members[user_id]
    return MemberView(user_id, member.role, member.joined_seq, rfc3339(past.joined[user_id].at))


def _entry(past: PastConversation, user_id: str, user: User | None, at: datetime) -> InboxEntry:
    """The entry in a member's inbox."""
    conversation, message = past.conversation, past.last_message
    head = Head(
        conversation.kind,
        conversation.name,
        sorted(conversation.members) if conversation.kind == "direct" else [],
        past.place.version,
        past.place.sequence,
        _ms(past.place.at),
        conversation.last_seq,
        None if message is None else _to_json(message_of(message)),
    )
    id_ = int(conversation.id)
    marker, own = (user.markers.get(id_), user.own_settings.get(id_)) if user else (None, None)
    return inbox_entry(
        id_,
        head,
        Own(
            conversation.members[user_id].joined_seq,
            max(past.posted.get(user_id, 0), marker.seq if marker else 0),
            None if own is None or own.muted_until is None else _ms(own.muted_until),
            own.pinned if own else False,
            own.hidden if own else False,
        ),
        user_id,
        _ms(at),
    )


def _ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)
