"""The hot store, read: inboxes and newest messages from Valkey, and from Postgres whenever Valkey cannot say.

An inbox is merged when it is read: the user's own parts say which conversations, the heads that all their members share
say in what order and what is shown. Nothing is kept for each recipient of a message.

What is missing is read from Postgres and put there, on the condition that the feeder has not gone past the moment that
was read: it passes over what is not there, so an update between reading and putting would be lost. Then the answer is
right all the same, and the next reader tries again.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from domain.ids import partition_of, slot_of
from projections import hot_keys, metrics
from projections.asking import answer
from projections.entries import Head, Own, inbox_entry
from projections.hot_keys import Tail
from projections.inbox import InboxQueries, Place, now_ms, page_of, place_of
from projections.pages import Inbox, Positions
from streams import subjects

ANSWER_S: Final = 0.25  # Valkey answers in a few milliseconds; after this, Postgres is asked

log_ = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Reading:
    """One page in the making.

    Attributes:
        positions: what is read is not older than this. Lowered by what came from an older Postgres.
        rebuilt: whether anything was missing.
    """

    epoch: str
    positions: Positions
    rebuilt: bool = False

    def key(self, name: str) -> str:
        return hot_keys.root(self.epoch) + name

    def lower(self, to: Positions) -> None:
        """Take in something that was read at other positions."""
        mine = self.positions
        self.rebuilt = True
        self.positions = Positions(
            tuple(map(min, mine.conversations, to.conversations)), tuple(map(min, mine.users, to.users))
        )


class HotStore:
    """Reads inboxes and newest messages, and puts into Valkey what is missing there.

    Args:
        valkey: opened and closed by its maker; gives bytes, tries once.
        inbox: answers when Valkey does not, and is what missing keys are rebuilt from.
        partitions: of the deployment.
    """

    def __init__(self, valkey: "redis.asyncio.Redis", inbox: InboxQueries, *, partitions: int = 1) -> None:
        self._valkey = valkey
        self._inbox = inbox
        self._partitions = partitions
        self._install_script = valkey.register_script(hot_keys.INSTALL)
        self._epoch = ""  # the one that was in force when last looked

    async def page(
        self,
        user_id: str,
        *,
        limit: int,
        page: str | None = None,
        hidden: bool = False,
        at_least: Positions | None = None,
    ) -> Inbox:
        """As `InboxQueries.page`; it never fails for Valkey's sake.

        The entries are not older than the cursor.

        Args:
            at_least: positions that Postgres has reached; where Valkey has not yet, Postgres answers.
        """
        after = None if page is None else place_of(page)
        try:
            found = await self._page(user_id, limit, after, hidden, at_least)
        except (RedisError, OSError, TimeoutError) as error:
            log_.warning("inboxes are read from Postgres: Valkey does not answer", error=repr(error))
            found = None
        if found is None:
            metrics.INBOXES.labels("postgres").inc()
            return await self._inbox.page(user_id, limit=limit, page=page, hidden=hidden)
        return found

    async def _page(
        self, user_id: str, limit: int, after: Place | None, hidden: bool, at_least: Positions | None
    ) -> Inbox | None:
        reading, own = await self._open(user_id)
        if reading is None or (at_least is not None and not reading.positions.reaches(at_least)):
            return None
        if own is None:
            own = await self._rebuild_own(reading, user_id)
        shown = [id_ for id_, part in own.items() if hidden or not part.hidden]
        ranks = await self._ranks(reading, shown)
        places = sorted(((at_ms, id_) for id_, at_ms in ranks.items()), reverse=True)
        if after is not None:
            places = [place for place in places if place < after]
        given = places[:limit]
        heads = await self._heads(reading, [id_ for _, id_ in given])
        now = now_ms()
        metrics.INBOXES.labels("rebuilt" if reading.rebuilt else "hot").inc()
        return Inbox(
            [inbox_entry(id_, heads[id_], own[id_], user_id, now) for _, id_ in given if id_ in heads],
            reading.positions.cursor(user_id),
            page_of(given[-1]) if len(places) > limit else None,
        )

    async def tail(self, conversation_id: int, user_id: str, *, fill: bool) -> Tail | None:
        """The newest messages of a conversation; `None` if they are not here, or if it is not known here that the user
        is a member.

        Args:
            fill: have them here the next time.
        """
        try:
            found = await self._tail(conversation_id, user_id)
            if found is None and fill:
                await self._fill_tail(conversation_id, user_id)
        except (RedisError, OSError, TimeoutError) as error:
            log_.warning("messages are read from Postgres: Valkey does not answer", error=repr(error))
            return None
        return found

    async def _tail(self, conversation_id: int, user_id: str) -> Tail | None:
        partition = partition_of(slot_of(conversation_id), self._partitions)
        while True:
            root = hot_keys.root(self._epoch)
            tail = f"{root}tail:{conversation_id}"
            pipeline = self._valkey.pipeline(transaction=True)
            pipeline.get(hot_keys.EPOCH)
            pipeline.hexists(root + "at", subjects.stream(subjects.CONV, partition))
            pipeline.hexists(f"{root}own:{user_id}", str(conversation_id))
            pipeline.lrange(tail, 0, -1)
            pipeline.expire(tail, hot_keys.TAIL_TTL_S)
            epoch, is_fed, is_member, entries, _ = await _answer(pipeline.execute())
            if epoch is None:
                return None
            if epoch.decode() == self._epoch:
                break
            self._epoch = epoch.decode()
        return Tail(entries) if is_fed and is_member and entries else None

    async def _fill_tail(self, conversation_id: int, user_id: str) -> None:
        reading, own = await self._open(user_id)
        if reading is None:
            return
        if own is None:
            await self._rebuild_own(reading, user_id)
        applied, messages = await self._inbox.newest_messages(conversation_id, hot_keys.TAIL_MAX)
        entries = [hot_keys.packed_message(message) for message in messages]
        if entries and all(entries):
            await self._install(reading, applied, conversation_id=conversation_id, tail=entries)

    # -- the parts ------------------------------------------------------------------------------------------

    async def _open(self, user_id: str) -> tuple[_Reading | None, dict[int, Own] | None]:
        """The epoch in force with its positions, and in the same moment what the user has in it, if anything.

        No epoch when none is in force, or not all streams are in it yet.
        """
        while True:
            root = hot_keys.root(self._epoch)
            pipeline = self._valkey.pipeline(transaction=True)
            pipeline.get(hot_keys.EPOCH)
            pipeline.hgetall(root + "at")
            pipeline.hgetall(f"{root}own:{user_id}")
            epoch, at, own = await _answer(pipeline.execute())
            if epoch is None:
                return None, None
            if epoch.decode() != self._epoch:
                self._epoch = epoch.decode()
                continue
            positions = self._positions(at)
            if positions is None:
                return None, None
            if own.pop(hot_keys.NOBODY, None) is None:
                return _Reading(self._epoch, positions), None
            return _Reading(self._epoch, positions), {int(id_): hot_keys.unpacked_own(own[id_]) for id_ in own}

    def _positions(self, at: dict[bytes, bytes]) -> Positions | None:
        found = [
            tuple(int(at.get(subjects.stream(family, p).encode(), -1)) for p in range(self._partitions))
            for family in (subjects.CONV, subjects.USER)
        ]
        return None if any(-1 in of_family for of_family in found) else Positions(*found)

    async def _rebuild_own(self, reading: _Reading, user_id: str) -> dict[int, Own]:
        applied, own = await self._inbox.own(user_id)
        packed: list[tuple[int | bytes, bytes]] = [(id_, hot_keys.packed(part)) for id_, part in own.items()]
        await self._install(reading, applied, user_id=user_id, own=[(hot_keys.NOBODY, b""), *packed])
        return own

    async def _ranks(self, reading: _Reading, conversation_ids: list[int]) -> dict[int, int]:
        """When conversations were updated; those without a head are left out."""
        if not conversation_ids:
            return {}
        root = reading.key("rank:")
        found = await _answer(self._valkey.mget([f"{root}{id_}" for id_ in conversation_ids]))
        ranks = {id_: int(rank) for id_, rank in zip(conversation_ids, found, strict=True) if rank is not None}
        if missing := [id_ for id_ in conversation_ids if id_ not in ranks]:
            applied, read = await self._inbox.ranks(missing)
            await self._install(reading, applied, [(f"rank:{id_}", at_ms) for id_, at_ms in read.items()])
            ranks |= read
        return ranks

    async def _heads(self, reading: _Reading, conversation_ids: list[int]) -> dict[int, Head]:
        if not conversation_ids:
            return {}
        root = reading.key("head:")
        found = await _answer(self._valkey.mget([f"{root}{id_}" for id_ in conversation_ids]))
        heads = {
            id_: hot_keys.unpacked_head(head)
            for id_, head in zip(conversation_ids, found, strict=True)
            if head is not None
        }
        if missing := [id_ for id_ in conversation_ids if id_ not in heads]:
            applied, read = await self._inbox.heads(missing)
            await self._install(
                reading, applied, [(f"head:{id_}", hot_keys.packed(head)) for id_, head in read.items()]
            )
            heads |= read
        return heads

    async def _install(
        self,
        reading: _Reading,
        applied: Positions,
        values: Iterable[tuple[str, bytes | int]] = (),
        *,
        user_id: str = "",
        own: Iterable[tuple[int | bytes, bytes]] = (),
        conversation_id: int | None = None,
        tail: Sequence[bytes] = (),
    ) -> None:
        """Put what was read at positions into the hot store, if the feeder has not gone past them."""
        reading.lower(applied)
        arguments: list[Any] = [reading.epoch, hot_keys.TTL_S]
        for items in (list(hot_keys.by_stream(applied).items()), list(values)):
            arguments.append(len(items))
            for item in items:
                arguments += item
        parts = list(own)
        arguments += (user_id, len(parts))
        for part in parts:
            arguments += part
        arguments += ("" if conversation_id is None else conversation_id, hot_keys.TAIL_TTL_S, len(tail), *tail)
        await _answer(self._install_script(keys=[hot_keys.EPOCH], args=arguments))


async def _answer(asked: Awaitable[Any]) -> Any:
    return await answer(asked, ANSWER_S)
