"""Who the members of a conversation are at any event of it: what the fan-out asks for each event it addresses.

An audience in memory is exact as of the newest event of its conversation that was folded in. One that is not there is
taken from the `members` read model, which may be behind the event at hand or ahead of it: what lies between is folded
in, or taken back, from the log. Without the read model the whole conversation is folded, so push outlives Postgres.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from domain.events import ConversationCreated, Event, MemberAdded, MemberRemoved
from projections import metrics
from projections.reader import Interrupted
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery, Log

MEMBERS_MAX: Final = 500_000  # users in memory, of all partitions of a process: 190 bytes each, about 95 MB
POSTGRES_S: Final = 2.0  # a statement takes milliseconds; then Postgres counts as down
ASK_AGAIN_S: Final = 5.0  # while it does, only the log is asked
READS_MAX: Final = 16  # conversations read from the log at once

MEMBERSHIP: Final = frozenset({ConversationCreated.TOPIC, MemberAdded.TOPIC, MemberRemoved.TOPIC})

log_ = structlog.get_logger(__name__)

# One statement, one snapshot: the members are those of the checkpoint. `version` is of the newest event that is not a
# message, so it is not less than that of the newest change of members.
_STOOD = """
    SELECT k.sequence, c.conversation_id, c.kind, c.version, c.member_count,
        CASE WHEN c.member_count <= %(most)s THEN
            ARRAY(SELECT user_id FROM members WHERE conversation_id = c.conversation_id) END
    FROM checkpoints k JOIN conversations c ON c.conversation_id = ANY(%(ids)s::int8[])
    WHERE k.projection = 'conversations' AND k.partition = %(partition)s"""

_EVERYBODY: Final = 1 << 31


@dataclass(slots=True)
class Audience:
    """The members of one conversation.

    Attributes:
        kind: of the conversation.
        addresses: by user id, the subject that each is told under; `None` while they are too many to be kept.
        held: what it counts for in the bound on memory.
    """

    kind: str
    count: int
    addresses: dict[str, str] | None
    held: int = 0

    @classmethod
    def of(cls, kind: str, members: Iterable[str]) -> Self:
        """The audience that these users are."""
        addresses = {user_id: subjects.live_user(user_id) for user_id in members}
        return cls(kind, len(addresses), addresses)

    def fold(self, event: Event) -> None:
        """Take in the next change of members."""
        match event:
            case ConversationCreated():
                created = Audience.of(event.kind, event.members)
                self.kind, self.count, self.addresses = created.kind, created.count, created.addresses
            case MemberAdded():
                self._add(event.user_id)
            case MemberRemoved():
                self._remove(event.user_id)
            case _:
                pass

    def take_back(self, event: Event) -> None:
        """Undo the newest change of members. A member is only added who is none, and only removed who is one."""
        match event:
            case ConversationCreated():
                self.count, self.addresses = 0, {}
            case MemberAdded():
                self._remove(event.user_id)
            case MemberRemoved():
                self._add(event.user_id)
            case _:
                pass

    def _add(self, user_id: str) -> None:
        self.count += 1
        if self.addresses is not None:
            self.addresses[user_id] = subjects.live_user(user_id)

    def _remove(self, user_id: str) -> None:
        self.count -= 1
        if self.addresses is not None:
            self.addresses.pop(user_id, None)


def change_of_members(delivery: Delivery) -> Event | None:
    """The event of a delivery if it changes who is a member; one that nobody can read changes nothing."""
    if delivery.headers.get(subjects.TYPE) not in MEMBERSHIP:
        return None
    try:
        return decode(delivery)
    except Exception as error:  # noqa: BLE001  # it must not silence those after it
        log_.error(
            "unreadable event",
            stream=delivery.stream,
            sequence=delivery.sequence,
            correlation_id=delivery.headers.get(subjects.CORRELATION),
            error=repr(error),
        )
        return None


@dataclass(slots=True)
class _Stood:
    """An audience as it stood in the read model: as of a sequence; `version` is that of its newest change or more."""

    audience: Audience
    sequence: int
    version: int


class Audiences:
    """The audiences of one partition, in memory; the least recently used make room.

    Args:
        pool: of the read models, opened and closed by its maker.
        listed: up to how many members a list of them is asked for; of more, only their number is sure to be known.
        members_max: users in memory at most.
    """

    def __init__(
        self, log: Log, pool: AsyncConnectionPool, *, partition: int, listed: int, members_max: int = MEMBERS_MAX
    ) -> None:
        self._stream = subjects.stream(subjects.CONV, partition)
        self._partition = partition
        self._log = log
        self._pool = pool
        self._listed = listed
        self._listed_max = 2 * listed  # a conversation that goes up and down around `listed` is not looked up each time
        self._members_max = members_max
        self._kept: OrderedDict[str, Audience] = OrderedDict()
        self._held = 0
        self._reads = asyncio.Semaphore(READS_MAX)
        self._ask_at_s = 0.0

    def clear(self) -> None:
        """Forget all: what comes next does not follow on what was folded in last."""
        self._kept.clear()
        self._held = 0

    async def prepare(self, deliveries: Sequence[Delivery]) -> None:
        """Look up at once what a batch will need; `after` would do so one by one.

        Raises:
            Interrupted, LogError: it cannot be told now.
        """
        first: dict[str, Delivery] = {}
        for delivery in deliveries:
            first.setdefault(subjects.aggregate_id(delivery.subject), delivery)
        created = ConversationCreated.TOPIC
        missing = [
            delivery
            for conversation_id, delivery in first.items()
            if conversation_id not in self._kept and delivery.headers[subjects.TYPE] != created
        ]
        if missing:
            await self._load(missing, self._listed_max)

    async def after(self, delivery: Delivery, event: Event | None) -> Audience:
        """The audience of a conversation right after an event of it. Events come in order, none twice.

        Args:
            event: what `change_of_members` says of the delivery.

        Returns:
            With a list if there are `listed` members or fewer.

        Raises:
            Interrupted, LogError: it cannot be told now; the event is not folded in.
        """
        conversation_id = subjects.aggregate_id(delivery.subject)
        audience = self._kept.get(conversation_id)
        if isinstance(event, ConversationCreated):
            audience = Audience.of(event.kind, event.members)
        else:
            # One more than `listed`: this event may remove one.
            if audience is None or (audience.addresses is None and audience.count <= self._listed + 1):
                await self._load([delivery], self._listed_max)
                audience = self._kept[conversation_id]
            if event is not None:
                audience.fold(event)
        self._keep(conversation_id, audience)
        return audience

    async def now(self, conversation_id: int) -> Audience | None:
        """The audience as far as it is known here, or else to the read model: for signals, which promise nothing.

        Returns:
            `None`: there is no such conversation, or it is in neither place.
        """
        audience = self._kept.get(str(conversation_id))
        if audience is None:
            stood = (await self._stood([conversation_id], self._listed_max)).get(str(conversation_id))
            audience = None if stood is None else stood.audience
        return audience

    # -- memory ---------------------------------------------------------------------------------------------

    def _keep(self, conversation_id: str, audience: Audience) -> None:
        before = self._kept.pop(conversation_id, None)
        self._held -= 0 if before is None else before.held
        if audience.count > self._listed_max:
            audience.addresses = None
        audience.held = 1 + len(audience.addresses or ())
        self._held += audience.held
        self._kept[conversation_id] = audience
        while self._held > self._members_max and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._held -= oldest.held

    async def _load(self, firsts: Sequence[Delivery], most: int) -> None:
        """Have in memory the audiences of conversations as they were right before an event of each."""
        metrics.AUDIENCE_LOADS.labels(self._stream).inc(len(firsts))
        ids = [subjects.aggregate_id(first.subject) for first in firsts]
        stood = await self._stood([int(conversation_id) for conversation_id in ids], most)
        reading = [self._before(first, stood.get(id_)) for first, id_ in zip(firsts, ids, strict=True)]
        unlisted = []
        for outcome, first in zip(await asyncio.gather(*reading, return_exceptions=True), firsts, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome.addresses is None and outcome.count <= self._listed_max:
                unlisted.append(first)  # there were more of them when the read model was asked
            self._keep(subjects.aggregate_id(first.subject), outcome)
        if unlisted:
            await self._load(unlisted, _EVERYBODY)

    # -- where it is looked up ------------------------------------------------------------------------------

    async def _stood(self, conversation_ids: list[int], most: int) -> dict[str, _Stood]:
        """What the read model has of conversations, with a list if there are not more than `most`.

        Without Postgres it has nothing, and is not asked again for a while.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._ask_at_s:
            return {}
        values = {"ids": conversation_ids, "most": most, "partition": self._partition}
        try:
            async with asyncio.timeout(POSTGRES_S), self._pool.connection(timeout=POSTGRES_S) as connection:
                rows = await (await connection.execute(_STOOD, values, prepare=True, binary=True)).fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
            log_.warning("members are read from the log: Postgres does not answer", error=str(error) or repr(error))
            self._ask_at_s = clock() + ASK_AGAIN_S
            return {}
        return {
            str(conversation_id): _Stood(
                Audience(kind, count, None) if members is None else Audience.of(kind, members), sequence, version
            )
            for sequence, conversation_id, kind, version, count, members in rows
        }

    async def _before(self, first: Delivery, stood: _Stood | None) -> Audience:
        """The audience right before an event, from where it stood or from nothing."""
        version = _version(first)
        if stood is not None and stood.sequence >= first.sequence:
            if stood.version < version or await self._take_back(stood, first):
                return stood.audience
            stood = None
        after_sequence, audience = (0, Audience("", 0, {})) if stood is None else (stood.sequence, stood.audience)
        if after_sequence < first.sequence - 1:
            newest = 0
            async for delivery in self._read(first.subject, after_sequence, first.sequence):
                newest = _version(delivery)
                if newest < version and (event := change_of_members(delivery)) is not None:
                    audience.fold(event)
            if newest < version:
                raise Interrupted(f"a replica of {self._stream} does not have event {first.sequence} yet")
        return audience

    async def _take_back(self, stood: _Stood, first: Delivery) -> bool:
        """Bring an audience back to right before an event; false: the log lacks what the read model has folded."""
        events, newest = [], 0
        async for delivery in self._read(first.subject, first.sequence - 1, stood.sequence):
            newest = _version(delivery)
            if (event := change_of_members(delivery)) is not None:
                events.append(event)
        for event in reversed(events):
            stood.audience.take_back(event)
        return newest >= stood.version

    async def _read(self, subject: str, after_sequence: int, up_to_sequence: int) -> AsyncIterator[Delivery]:
        reading = self._log.read(
            self._stream, subject=subject, after_sequence=after_sequence, up_to_sequence=up_to_sequence
        )
        async with self._reads:
            async for delivery in reading:
                yield delivery


def _version(delivery: Delivery) -> int:
    version = delivery.headers.get(subjects.VERSION, "")
    return int(version) if version.isdecimal() else 0
