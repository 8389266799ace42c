"""The hot store, written: what the projections have committed is brought to Valkey.

An **epoch** is a lifetime of the hot store, begun by a feeder with nothing in it but, for each stream, the sequence up
to which the hot store has everything. From there on the feeder keeps that true: after each commit it reads the rows
that were touched as they are now and writes them together with the new sequence, on the condition that the hot store
is as it left it. If it is not (Valkey was flushed or restarted, another feeder was here, a write may have got lost, or
more came than is kept) nobody knows what is missing, and a new epoch begins. What was in the old one is not read again.

Rows are read after the commit, so it is no matter in what order, how often, or how much later: what is written is never
older than the sequence that is written with it.
"""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

import redis.asyncio
import structlog
from psycopg_pool import AsyncConnectionPool
from redis.exceptions import RedisError

from domain import events
from domain.errors import Unavailable
from projections import hot_keys, metrics
from projections.asking import answer
from projections.entries import Head, Own, read_heads, read_own_of_pairs
from projections.pages import Positions
from projections.projection import LoggedEvent
from projections.reading import POSITIONS, Database, positions_of
from streams.cancelling import raise_if_cancelled
from streams.public import message_of

PACE_S: Final = 0.025  # between writes, so that what comes close together is written once
CHECK_S: Final = 1.0  # when nothing comes, whether Valkey still has the epoch
RETRY_S: Final = 1.0  # after Postgres failed, and at least between two beginnings of an epoch
ANSWER_S: Final = 5.0  # a large write takes milliseconds; after this Valkey counts as down
PENDING_MAX: Final = 50_000  # conversations, pairs and messages not yet written; more is a new epoch
WRITE_MAX: Final = 1_000  # conversations, or pairs, or messages, in one script: Valkey does nothing else meanwhile

log_ = structlog.get_logger(__name__)

Pair = tuple[str, int]  # a user, and a conversation of theirs


class HotFeed:
    """Keeps the hot store current while `run` runs, in the process that runs the projections.

    Args:
        valkey: opened and closed by its maker; gives bytes, tries once.
        pool: of the database the projections write to.
        streams: those that the projections of this process are fed from.
        partitions: of the deployment.

    Attributes:
        epochs_total: how often this feeder has begun an epoch.
    """

    def __init__(
        self, valkey: "redis.asyncio.Redis", pool: AsyncConnectionPool, streams: Sequence[str], *, partitions: int = 1
    ) -> None:
        self.epochs_total = 0
        self._database = Database(pool)
        self._streams = list(streams)
        self._partitions = partitions
        self._begin_script = valkey.register_script(hot_keys.BEGIN)
        self._write_script = valkey.register_script(hot_keys.WRITE)
        self._epoch = ""  # the last one this feeder was in
        self._in_force = False  # whether it still is, as far as is known
        self._taking = False  # whether what is fed is kept: from when an epoch begins until it is lost
        self._at: dict[str, int] = {}  # what the hot store was left at
        self._fed: dict[str, int] = {}  # up to which everything was said to be applied
        self._reached: dict[str, int] = {}  # the last event that was fed: further, when one projection is ahead
        self._fed_first: dict[str, int] = {}  # what was fed first since the epoch's beginning
        self._conversations: set[int] = set()
        self._pairs: set[Pair] = set()
        self._messages: list[events.MessagePosted] = []
        self._woken = asyncio.Event()

    def feed(self, stream: str, batch: Sequence[LoggedEvent], sequence: int) -> None:
        """Take note of what was committed: for `ProjectionWorker(on_commit=…)`. Never waits.

        When more than `PENDING_MAX` waits to be written, or something was left out, a new epoch begins.
        """
        if not self._taking:
            return
        first = batch[0].sequence if batch else sequence
        if first > self._reached.get(stream, first) + 1:
            self._lose(f"{stream} went on at {first} after {self._reached[stream]}")
            return
        self._fed_first.setdefault(stream, first)
        self._fed[stream] = sequence
        self._reached[stream] = max(sequence, batch[-1].sequence if batch else 0)
        for _, event in batch:
            self._touch(event)
        if self._pending() > PENDING_MAX:
            self._lose("more was committed than could be written")
        self._woken.set()

    async def run(self) -> None:
        """Write to Valkey what was fed, until cancelled; through outages of Valkey and Postgres."""
        for stream in self._streams:
            metrics.HOT_FEED_PENDING.labels(stream).set_function(self._pending)
        try:
            await self._keep_writing()
        finally:
            for stream in self._streams:
                metrics.HOT_FEED_PENDING.remove(stream)

    def _pending(self) -> int:
        return len(self._conversations) + len(self._pairs) + len(self._messages)

    async def _keep_writing(self) -> None:
        clock = asyncio.get_running_loop().time
        begin_at_s = clock()
        while True:
            raise_if_cancelled()
            pause_s = PACE_S
            try:
                if not self._in_force:
                    await asyncio.sleep(begin_at_s - clock())
                    begin_at_s = clock() + RETRY_S
                    await self._begin()
                if self._in_force:
                    await self._write()
            except (RedisError, OSError, TimeoutError) as error:
                self._lose(f"Valkey: {error!r}")
            except Unavailable:
                pause_s = RETRY_S  # what was fed is kept
            await asyncio.sleep(pause_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._woken.wait()

    # -- epochs ---------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Begin an epoch, or enter the one that another feeder has begun since ours was lost."""
        self._clear()
        self._taking = True
        at = self._of_streams(await self._positions())
        self._check_first(at)
        if not self._taking:
            return
        arguments: list[str | int] = [secrets.token_hex(8), self._epoch, hot_keys.TTL_S, len(at)]
        for stream, sequence in at.items():
            arguments += (stream, sequence)
        epoch, before = await answer(self._begin_script(keys=[hot_keys.EPOCH], args=arguments), ANSWER_S)
        self._epoch, self._at = epoch.decode(), at
        self._in_force = self._taking  # not if it was lost meanwhile
        self.epochs_total += 1
        metrics.HOT_EPOCHS.inc()
        log_.info("an epoch of the hot store begins", epoch=self._epoch, before=before.decode())

    def _check_first(self, at: dict[str, int]) -> None:
        """What was fed while the positions were read goes on where they end."""
        for stream, sequence in at.items():
            if self._fed_first.get(stream, 0) > sequence + 1:
                self._lose(f"{stream} went on at {self._fed_first[stream]} after {sequence}")
            self._fed[stream] = max(sequence, self._fed.get(stream, 0))
            self._reached[stream] = max(sequence, self._reached.get(stream, 0))

    def _lose(self, reason: str) -> None:
        if self._in_force:
            log_.warning("the hot store is lost; it begins anew", reason=reason)
        self._clear()
        self._taking = self._in_force = False
        self._woken.set()

    def _clear(self) -> None:
        self._conversations.clear()
        self._pairs.clear()
        self._messages.clear()
        self._fed.clear()
        self._reached.clear()
        self._fed_first.clear()

    # -- writing --------------------------------------------------------------------------------------------

    def _touch(self, event: events.Event) -> None:
        """Whose rows an event may have changed."""
        match event:
            case events.ReadMoved() | events.SettingsUpdated():
                self._pairs.add((event.originator_id, event.conversation_id))
                return
            case events.ConversationCreated():
                users = list(event.members)
            case events.MemberAdded() | events.MemberRemoved():
                users = [event.user_id]
            case events.MessagePosted():
                users = [event.actor_id]
                self._messages.append(event)
            case events.ConversationUpdated() | events.MemberUpdated():
                users = []
            case _:
                return
        conversation_id = int(event.originator_id)
        self._conversations.add(conversation_id)
        self._pairs.update((user_id, conversation_id) for user_id in users)

    async def _write(self) -> None:
        """Write what was fed up to now, or only look whether the epoch is still in force."""
        self._woken.clear()
        conversations, self._conversations = self._conversations, set()
        pairs, self._pairs = self._pairs, set()
        posted, self._messages = self._messages, []
        fed = dict(self._fed)
        try:
            async with self._database.snapshot() as snapshot:
                applied = positions_of(await snapshot.rows(POSITIONS, {}), self._partitions)
                heads = await read_heads(snapshot, conversations) if conversations else {}
                own = await read_own_of_pairs(snapshot, pairs) if pairs else {}
        except Unavailable:
            if self._taking:
                self._conversations |= conversations
                self._pairs |= pairs
                self._messages[:0] = posted
            raise
        moves: list[tuple[str, int, int]] = []
        for stream, sequence in self._of_streams(applied).items():
            if sequence < self._at[stream]:
                self._lose(f"the read models of {stream} went back to {sequence}")
                return
            # What is committed and not fed yet is not in the hot store yet.
            now = max(self._at[stream], min(sequence, fed.get(stream, 0)))
            if now > self._at[stream]:
                moves.append((stream, self._at[stream], now))
        all_heads = [(id_, heads.get(id_)) for id_ in conversations]
        all_own = [(pair, own.get(pair)) for pair in sorted(pairs)]
        stands = [(stream, self._at[stream], self._at[stream]) for stream in self._streams[:1]]
        is_last = False
        while not is_last:
            is_last = max(len(all_heads), len(all_own), len(posted)) <= WRITE_MAX
            some = (all_heads[:WRITE_MAX], all_own[:WRITE_MAX], posted[:WRITE_MAX])
            if not await self._send(moves or stands, *some, is_last=is_last):
                return
            all_heads, all_own, posted = all_heads[WRITE_MAX:], all_own[WRITE_MAX:], posted[WRITE_MAX:]
        self._at.update((stream, now) for stream, _, now in moves)

    async def _send(
        self,
        moves: list[tuple[str, int, int]],
        heads: list[tuple[int, Head | None]],
        own: list[tuple[Pair, Own | None]],
        posted: list[events.MessagePosted],
        *,
        is_last: bool,
    ) -> bool:
        """One script. Whether the hot store was as this feeder left it; else it is lost."""
        arguments: list[str | bytes | int] = [self._epoch, hot_keys.TTL_S, int(is_last), len(moves)]
        for move in moves:
            arguments += move
        arguments.append(len(heads))
        for conversation_id, head in heads:
            arguments += (conversation_id, *((b"", 0) if head is None else (hot_keys.packed(head), head.updated_at_ms)))
        by_user = [(user_id, list(group)) for user_id, group in groupby(own, key=lambda item: item[0][0])]
        arguments.append(len(by_user))
        for user_id, group in by_user:
            arguments += (user_id, len(group))
            for (_, conversation_id), part in group:
                arguments += (conversation_id, b"" if part is None else hot_keys.packed(part))
        arguments.append(len(posted))
        for event in posted:
            arguments += (event.originator_id, event.seq, hot_keys.packed_message(message_of(event)))
        written = await answer(self._write_script(keys=[hot_keys.EPOCH], args=arguments), ANSWER_S)
        if not written:
            self._lose("it is not as it was left")
        return bool(written)

    async def _positions(self) -> Positions:
        return positions_of(await self._database.rows(POSITIONS, {}), self._partitions)

    def _of_streams(self, positions: Positions) -> dict[str, int]:
        """The positions of this feeder's streams."""
        by_stream = hot_keys.by_stream(positions)
        return {stream: by_stream[stream] for stream in self._streams}
