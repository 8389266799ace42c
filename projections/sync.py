"""What happened since a cursor: for a client that pulls (`sync`), and for a session that resumes (`missed`).

Everything is read in one snapshot of the database, and as of the positions of that snapshot: what one read model has
and another has not yet is left for the next time. Which of a user's conversations have changed is told by their heads,
one row a conversation, so a long history costs no more than a short one.

From which event on a user is told of a conversation:

- who was in it at the cursor and still is: from the cursor on; also who left and came back meanwhile;
- who came in since: from the event that made them a member;
- who is out of it: as above, up to the event that removed them, and nothing from before that membership.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from psycopg_pool import AsyncConnectionPool

from domain.ids import partition_of, slot_of
from projections.entries import MINE, MY_JOINS, OWN_COLUMNS, Own, entry_fields, read_heads
from projections.events_since import NOTHING, Since, Wanted, read_events_since, read_first_events_since
from projections.inbox import now_ms
from projections.own_events import read_own_events, read_own_events_of_many
from projections.pages import LeftEntry, Membership, Missed, Positions, Synced, SyncEntry
from projections.reading import PARTITION, POSITIONS, Database, Row, Snapshot, positions_of
from projections.rounds import Rounds
from streams.cursor import Cursor, Page
from streams.public import UserEvent

_POSITION = f"(%(positions)s::int8[])[1 + {PARTITION}]"
_AHEAD = "unnest(%(ahead_ids)s::int8[], %(ahead_versions)s::int8[]) AS ahead (conversation_id, version)"

# What one has seen of a conversation is said by the position of its partition, or by its version when that is ahead.
_HEAD_MOVED = f"h.sequence > {_POSITION.format(id='m.conversation_id')} AND h.version > coalesce(ahead.version, 0)"

_CHANGED = f"""
    {MINE}
    SELECT m.conversation_id, {_HEAD_MOVED}, m.joined_version, m.joined_sequence, coalesce(d.left_sequence, 0),
        {OWN_COLUMNS}
    FROM mine m JOIN heads h ON h.conversation_id = m.conversation_id {MY_JOINS}
        LEFT JOIN departures d ON d.user_id = m.user_id AND d.conversation_id = m.conversation_id
        LEFT JOIN {_AHEAD} ON ahead.conversation_id = m.conversation_id
    WHERE m.conversation_id > %(after)s
        AND ({_HEAD_MOVED} OR greatest(r.sequence, s.sequence) > %(own)s)
    ORDER BY m.conversation_id LIMIT %(limit)s"""

_LEFT = f"""
    WITH departed AS MATERIALIZED (SELECT * FROM departures WHERE user_id = %(user)s)
    SELECT d.conversation_id, d.joined_version, d.left_version FROM departed d
        LEFT JOIN {_AHEAD} ON ahead.conversation_id = d.conversation_id
    WHERE d.conversation_id > %(after)s
        AND d.left_sequence > {_POSITION.format(id="d.conversation_id")} AND d.left_version > coalesce(ahead.version, 0)
        AND NOT EXISTS (SELECT FROM members WHERE conversation_id = d.conversation_id AND user_id = d.user_id)
    ORDER BY d.conversation_id LIMIT %(limit)s"""

# For many users at once. How much of it they have seen differs: that is looked at afterwards.
_LEFT_OF_MANY = f"""
    SELECT d.user_id, d.conversation_id, d.joined_version, d.left_version, d.left_sequence FROM departures d
    WHERE d.user_id = ANY(%(users)s) AND d.left_sequence > {_POSITION.format(id="d.conversation_id")}
        AND NOT EXISTS (SELECT FROM members WHERE conversation_id = d.conversation_id AND user_id = d.user_id)"""

_MEMBERSHIPS_OF_MANY = f"""
    {MINE.replace("= %(user)s", "= ANY(%(users)s)")}
    SELECT m.conversation_id, c.member_count, c.version, m.joined_version, m.joined_sequence,
        coalesce(d.left_sequence, 0), coalesce(h.version, 0), coalesce(h.sequence, 0), m.user_id
    FROM mine m JOIN conversations c USING (conversation_id) LEFT JOIN heads h USING (conversation_id)
        LEFT JOIN departures d ON d.user_id = m.user_id AND d.conversation_id = m.conversation_id"""

_USER_VERSIONS = "SELECT user_id, version FROM users WHERE user_id = ANY(%(users)s)"

# For the few whose head is ahead of the other read models, or behind.
_NEWEST = """
    SELECT asked.id, newest.version, newest.sequence
    FROM unnest(%(ids)s::int8[], %(untils)s::int8[]) AS asked (id, until) CROSS JOIN LATERAL (
        SELECT version, sequence FROM changes WHERE conversation_id = asked.id AND sequence <= asked.until
        ORDER BY version DESC LIMIT 1) newest"""

_STILL_AHEAD = f"""
    SELECT ahead.conversation_id FROM {_AHEAD} LEFT JOIN heads h USING (conversation_id)
    WHERE h.sequence IS NULL OR h.version < ahead.version
        OR h.sequence > {_POSITION.format(id="ahead.conversation_id")}"""


TOGETHER_MAX: Final = 64  # sessions that resume in one look: a few thousand rows
OWN_MAX: Final = 100  # own events of one of them; who missed more is looked after alone, as with very many events
ALONE_MAX: Final = 3  # of those at once: a connection each

_TOO_MANY: Final = Missed([], [], [], Cursor(()), 0)  # more than is read for many at once


@dataclass(frozen=True, slots=True)
class _Stay:
    """A membership, as far as it says from which event on its user is told."""

    joined_version: int
    joined_sequence: int
    left_sequence: int  # of the membership before, 0 without one


class SyncQueries:
    """Reads what a user missed, for one deployment.

    Args:
        pool: opened and closed by its maker.
        partitions: of the deployment.

    All methods raise `Unavailable` when Postgres does not answer.
    """

    def __init__(self, pool: AsyncConnectionPool, *, partitions: int = 1) -> None:
        self._database = Database(pool)
        self._partitions = partitions
        # Thousands of sessions resume in the same moment when a gateway has died.
        self._resuming = Rounds(self._missed_together, most=TOGETHER_MAX)
        self._one_by_one = asyncio.Semaphore(ALONE_MAX)

    async def sync(self, user_id: str, cursor: Cursor, *, limit: int, events_max: int) -> Synced:
        """The conversations in which something happened since a cursor, and those the user is out of since.

        They come by id. A cursor that is ahead of the read models, which are being rebuilt, is given nothing new and
        stays as it is.

        Args:
            limit: conversations of one answer; more follow when one syncs again at the cursor that is given.
            events_max: events given of one conversation, the newest.
        """
        after = 0 if cursor.page is None else cursor.page.after
        values = {**self._seen(user_id, cursor), "after": after, "limit": limit + 1}
        async with self._database.snapshot() as snapshot:
            applied = await self._applied(snapshot)
            changed = {row[0]: row for row in await snapshot.rows(_CHANGED, values)}
            left = {row[0]: row for row in await snapshot.rows(_LEFT, values)}
            found = sorted([*changed, *left])
            given = found[:limit]
            done = len(found) <= limit
            # Where only what is the user's own has changed, there are no events.
            wanted = [
                self._of_member(id_, _Stay(*changed[id_][2:5]), cursor, applied)
                for id_ in given
                if id_ in changed and changed[id_][1]
            ]
            wanted += [self._of_left(left[id_], cursor, applied) for id_ in given if id_ in left]
            since = await read_events_since(snapshot, wanted, most=events_max)
            heads = await read_heads(snapshot, [id_ for id_ in given if id_ in changed])
            page = cursor.page or _whole_way(cursor, applied.cursor(user_id))
            if done:
                ahead = await self._still_ahead(snapshot, cursor, page)
                following = Cursor(page.until, page.until_own, ahead)
            else:
                following = replace(cursor, page=replace(page, after=given[-1]))
        now = now_ms()
        entries = []
        for id_ in given:
            if id_ in changed:
                events = since.get(id_, NOTHING)
                fields = entry_fields(id_, heads[id_], Own(*changed[id_][5:]), user_id, now)
                entries.append(SyncEntry(**fields, events=events.events, events_truncated=events.truncated))
        return Synced(
            conversations=entries,
            left=[_left(left[id_], since.get(id_, NOTHING)) for id_ in given if id_ in left],
            cursor=following,
            done=done,
        )

    async def missed(self, user_id: str, cursor: Cursor, *, limit: int) -> Missed | None:
        """Everything since a cursor, and where the user's conversations stand now.

        Those who ask at the same time are answered together, as of one moment after they asked.

        Returns:
            `None` when more than `limit` events were missed, or when the read models do not know because the cursor
            is ahead of them.
        """
        answer = await self._resuming.ask((user_id, cursor))
        if answer is not _TOO_MANY:
            return answer if answer is None or _size(answer) <= limit else None
        async with self._one_by_one, self._database.snapshot() as snapshot:
            return await self._missed_alone(snapshot, user_id, cursor, limit)

    async def _missed_together(self, asked: Sequence[tuple[str, Cursor]]) -> "list[Missed | None]":
        """For each the few events that were missed; `_TOO_MANY` where there are more of any conversation."""
        users = list({user_id for user_id, _ in asked})
        least = [min(positions) for positions in zip(*(cursor.positions for _, cursor in asked), strict=True)]
        values = {"users": users, "positions": least, "partitions": self._partitions}
        async with self._database.snapshot() as snapshot:
            applied = await self._applied(snapshot)
            own = await read_own_events_of_many(
                snapshot, [(user_id, cursor.own) for user_id, cursor in asked], limit=OWN_MAX + 1
            )
            user_versions = await self._user_versions(snapshot, values)
            members, left = defaultdict(list), defaultdict(list)
            rows = await snapshot.rows(_MEMBERSHIPS_OF_MANY, values)
            for row in rows:
                members[row[8]].append(row)
            newest = await self._newest(snapshot, rows, applied)
            for row in await snapshot.rows(_LEFT_OF_MANY, values):
                left[row[0]].append(row)
            places = [
                self._place(members[user_id], left[user_id], newest, cursor, applied) for user_id, cursor in asked
            ]
            since = await read_first_events_since(snapshot, [one for _, wanted in places for one in wanted])
        answers: list[Missed | None] = []
        for (user_id, cursor), events, (memberships, wanted) in zip(asked, own, places, strict=True):
            found = [since[one] for one in wanted if one in since]
            if not self._knows(cursor, applied.cursor(user_id)):
                answers.append(None)
            elif len(events) > OWN_MAX or any(one.truncated for one in found):
                answers.append(_TOO_MANY)
            else:
                following, version = applied.cursor(user_id), user_versions.get(user_id, 0)
                answers.append(
                    _missed(found, events, memberships, cursor=cursor, following=following, user_version=version)
                )
        return answers

    async def _missed_alone(self, snapshot: Snapshot, user_id: str, cursor: Cursor, limit: int) -> Missed | None:
        applied = await self._applied(snapshot)
        following = applied.cursor(user_id)
        if not self._knows(cursor, following):
            return None
        own = await read_own_events(snapshot, user_id, after=cursor.own, limit=limit + 1)
        values = {"users": [user_id], "positions": list(cursor.positions), "partitions": self._partitions}
        user_versions = await self._user_versions(snapshot, values)
        rows = await snapshot.rows(_MEMBERSHIPS_OF_MANY, values)
        newest = await self._newest(snapshot, rows, applied)
        left = await snapshot.rows(_LEFT_OF_MANY, values)
        memberships, wanted = self._place(rows, left, newest, cursor, applied)
        if len(wanted) + len(own) > limit:
            return None
        since = await read_events_since(snapshot, wanted, most=limit)
        if any(one.truncated for one in since.values()):
            return None
        version = user_versions.get(user_id, 0)
        missed = _missed(since.values(), own, memberships, cursor=cursor, following=following, user_version=version)
        return missed if _size(missed) <= limit else None

    def _place(
        self,
        rows: Sequence[Row],
        left: Sequence[Row],
        newest: Mapping[int, tuple[int, int]],
        cursor: Cursor,
        applied: Positions,
    ) -> tuple[list[Membership], list[Wanted]]:
        """A user's memberships, as of the positions, and the events of them and of those they left that were missed."""
        memberships, wanted = [], []
        for id_, member_count, counted_version, joined_version, joined_sequence, left_sequence, *_ in rows:
            version, sequence = newest.get(id_, (0, 0))
            # Who was put in after the positions is attached right before that: it is yet to be heard.
            memberships.append(Membership(id_, max(version, joined_version - 1), member_count, counted_version))
            if sequence > cursor.positions[self._partition(id_)] and version > cursor.ahead.get(id_, 0):
                stay = _Stay(joined_version, joined_sequence, left_sequence)
                wanted.append(self._of_member(id_, stay, cursor, applied))
        for _, id_, joined_version, left_version, left_sequence in left:
            if left_sequence > cursor.positions[self._partition(id_)] and left_version > cursor.ahead.get(id_, 0):
                wanted.append(self._of_left((id_, joined_version, left_version), cursor, applied))
        return memberships, wanted

    async def _user_versions(self, snapshot: Snapshot, values: dict[str, object]) -> dict[str, int]:
        return dict(await snapshot.rows(_USER_VERSIONS, values))

    def _knows(self, cursor: Cursor, following: Cursor) -> bool:
        """Whether the read models have come as far as a cursor."""
        return following.reaches(cursor)

    # -- from where to where --------------------------------------------------------------------------------

    async def _applied(self, snapshot: Snapshot) -> Positions:
        return positions_of(await snapshot.rows(POSITIONS, {}), self._partitions)

    def _seen(self, user_id: str, cursor: Cursor) -> dict[str, object]:
        return {
            "user": user_id,
            "partitions": self._partitions,
            "positions": list(cursor.positions),
            "own": cursor.own,
            "ahead_ids": list(cursor.ahead),
            "ahead_versions": list(cursor.ahead.values()),
        }

    async def _newest(self, snapshot: Snapshot, rows: Sequence[Row], applied: Positions) -> dict[int, tuple[int, int]]:
        """The newest version of each conversation as of the positions, and its sequence: its head, unless that is
        ahead of the other read models or not there yet."""
        newest, untold = {}, {}
        for row in rows:
            id_, version, sequence = row[0], row[6], row[7]
            until = applied.conversations[self._partition(id_)]
            if 0 < sequence <= until:
                newest[id_] = (version, sequence)
            else:
                untold[id_] = until
        if untold:
            values = {"ids": list(untold), "untils": list(untold.values())}
            newest |= {id_: (version, sequence) for id_, version, sequence in await snapshot.rows(_NEWEST, values)}
        return newest

    async def _still_ahead(self, snapshot: Snapshot, cursor: Cursor, page: Page) -> dict[int, int]:
        """What the cursor was ahead with, and the positions have not caught up with."""
        if not cursor.ahead:
            return {}
        rows = await snapshot.rows(_STILL_AHEAD, self._seen("", replace(cursor, positions=page.until)))
        return {id_: cursor.ahead[id_] for (id_,) in rows}

    def _partition(self, conversation_id: int) -> int:
        return partition_of(slot_of(conversation_id), self._partitions)

    def _of_member(self, conversation_id: int, stay: _Stay, cursor: Cursor, applied: Positions) -> Wanted:
        partition = self._partition(conversation_id)
        position = cursor.positions[partition]
        floor = cursor.ahead.get(conversation_id, 0)
        if stay.joined_sequence > position >= stay.left_sequence:
            floor = max(floor, stay.joined_version - 1)
        return Wanted(conversation_id, position, applied.conversations[partition], floor)

    def _of_left(self, row: Row, cursor: Cursor, applied: Positions) -> Wanted:
        """The events for a row of `_LEFT`."""
        id_, joined_version, left_version = row
        partition = self._partition(id_)
        floor = max(joined_version - 1, cursor.ahead.get(id_, 0))
        return Wanted(id_, cursor.positions[partition], applied.conversations[partition], floor, left_version)


def _missed(
    since: Iterable[Since],
    own: list[UserEvent],
    memberships: list[Membership],
    *,
    cursor: Cursor,
    following: Cursor,
    user_version: int,
) -> Missed:
    events = sorted(
        (pair for one in since for pair in zip(one.sequences, one.events, strict=True)), key=lambda pair: pair[0]
    )
    versions = {membership.conversation_id: membership.version for membership in memberships}
    ahead = {id_: version for id_, version in cursor.ahead.items() if version > versions.get(id_, version)}
    return Missed(
        events=[event for _, event in events],
        own=own,
        memberships=memberships,
        cursor=replace(following, ahead=ahead),
        user_version=user_version,
    )


def _size(missed: Missed) -> int:
    return len(missed.events) + len(missed.own)


def _whole_way(cursor: Cursor, applied: Cursor) -> Page:
    """A sync from a cursor to what is applied, or to itself where it is ahead of that."""
    until = tuple(max(seen, there) for seen, there in zip(cursor.positions, applied.positions, strict=True))
    return Page(until, max(cursor.own, applied.own), 0)


def _left(row: Row, since: Since) -> LeftEntry:
    return LeftEntry(str(row[0]), row[2], since.events, since.truncated)
