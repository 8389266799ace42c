"""The partition writer: decides the commands of one partition and appends what they come to, as one.

One group at a time: while an append is under way the next commands gather, and are decided and appended together
(group commit). Only a durable append acks. The fence is the stream's expected last sequence: a writer that is not
alone learns it from a failed expectation, forgets everything it held, reads the tail and decides again.

A command that needs what is not in memory leaves the queue with its lane, and comes back when that is loaded: a slow
load delays one conversation, never the partition. A command that comes too soon is put aside alone (`commands.asides`).
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from commands import metrics
from commands.asides import Asides
from commands.cache import AggregateCache
from commands.command import Command, NotLoaded, Result
from commands.decision import NAMED_MAX, Decision, Group, Pending, named
from commands.ports import ReceiptLookup
from commands.repository import Repository, Snapshotted, snapshot_of
from domain.conversations import ReceiptUnknown
from domain.errors import DomainError, Unavailable
from domain.ids import IdSequence
from domain.users import TooSoon
from streams import subjects
from streams.codec import decided_ms
from streams.ports import BATCH_MAX, AppendUnknown, Log, LogError, LogUnavailable, WrongSequence

GROUP_COMMANDS_MAX = 256  # more gain nothing (facts: 200 → 9 ms) and hold up the loop longer
GROUP_BYTES_MAX = 512 * 1024
PATIENCE_S = 5.0  # a command not decided and durable by then is answered "unavailable"
LOOK_UP_S = 2.0  # for a receipt of long ago: its conversation waits meanwhile
RETRY_S = 0.1  # between looks at a log that does not answer
PARKED_LANES_MAX = 10_000

log_ = structlog.get_logger(__name__)
level_ = logging.getLogger(__name__)  # asked before a line of debugging is made: structlog makes it first


class PartitionWriter:
    """Decides and appends for one partition, while `run` runs.

    Args:
        clock_ms: Unix milliseconds; may jump. Ids and times never go behind the partition's newest event.
        queue_max: commands waiting; one more is refused with `unavailable`.
        cache_bytes: memory for aggregates.
    """

    def __init__(
        self,
        log: Log,
        repository: Repository,
        receipts: ReceiptLookup,
        *,
        family: str,
        partition: int,
        clock_ms: Callable[[], int],
        queue_max: int,
        cache_bytes: int,
    ) -> None:
        self.stream = subjects.stream(family, partition)
        self._log = log
        self._repository = repository
        self._receipts = receipts
        self._family = family
        self._partition = partition
        self._clock_ms = clock_ms
        self._queue_max = queue_max
        self._queue: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._parked: dict[str, list[Pending]] = {}
        self._asides = Asides(self._give_back)
        self._background: set[asyncio.Task[None]] = set()
        self._cache = AggregateCache(cache_bytes)
        self._ids = IdSequence()
        self._expected: int | None = None  # the fence; None: to be read from the log
        self._generation = 0  # counts the falls of the fence: what was read before one is not kept after it
        self._name = secrets.token_hex(6)
        self._appends = 0
        self._loop = asyncio.get_running_loop()
        self._appending: asyncio.Future[None] = self._loop.create_future()
        self._appending.set_result(None)
        self._metrics = metrics.WriterMetrics(self.stream)

    # -- the door -------------------------------------------------------------------------------------------

    def submit(self, command: Command) -> "asyncio.Future[Result]":
        """Queue a command. The future has its durable result, or the domain error that refused it."""
        future: asyncio.Future[Result] = self._loop.create_future()
        pending = Pending(command, future, self._loop.time() + PATIENCE_S)
        if len(self._queue) >= self._queue_max or len(self._parked) >= PARKED_LANES_MAX:
            self._metrics.refused.inc()
            pending.refuse(Unavailable("too many commands are waiting; try again"))
        else:
            self._queue.append(pending)
            self._wake.set()
        return future

    @property
    def waiting(self) -> int:
        """How many commands wait to be decided."""
        return len(self._queue) + self._parked_commands()

    def _parked_commands(self) -> int:
        return sum(map(len, self._parked.values()))

    async def run(self) -> None:
        """Write until cancelled. Cancelling lets the append under way end, and answers the rest `unavailable`."""
        self._metrics.show(lambda: len(self._queue), self._parked_commands, lambda: len(self._asides))
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await self._write_group()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(self._appending, *self._background, return_exceptions=True)
        parked = (pending for lane in self._parked.values() for pending in lane)
        waiting = [*self._queue, *parked, *self._asides.clear()]
        self._queue.clear()
        self._parked.clear()
        for pending in waiting:
            pending.refuse(Unavailable("this writer is stopping; try again"))
        self._metrics.forget()

    # -- one group ------------------------------------------------------------------------------------------

    async def _write_group(self) -> None:
        try:
            await self._find_end()
        except LogError as error:
            await self._wait_for_log(error)
            return
        decision = self._decide_group()
        group = decision.group
        if decision.dirty:
            self._cache.clear()  # before the append: nobody may take a snapshot of what is not in the log
        # Shielded: an append under way is not left in the middle by a cancellation (see `_stop`).
        self._appending = asyncio.ensure_future(self._append(group))
        await asyncio.shield(self._appending)
        self._cache.shrink()

    def _decide_group(self) -> Decision:
        self._appends += 1
        decision = Decision(
            self._cache,
            self._ids,
            family=self._family,
            partition=self._partition,
            append_id=f"{self._name}-{self._appends}",
        )
        group, now_s = decision.group, self._loop.time()
        while self._queue and len(group.outcomes) < GROUP_COMMANDS_MAX and group.size_bytes < GROUP_BYTES_MAX:
            pending = self._queue.popleft()
            lane = pending.command.lane
            if pending.deadline < now_s:
                pending.refuse(Unavailable("the log did not take it in time; try again"))
            elif lane in self._parked:
                self._parked[lane].append(pending)
            elif not self._decide(decision, pending, lane):
                break
        return decision

    def _decide(self, decision: Decision, pending: Pending, lane: str) -> bool:
        """Decide one command into the group; false when the group must be closed after (or before) it."""
        before = len(decision.group.records)
        try:
            decision.decide(pending, self._clock_ms())
        except NotLoaded as missing:
            self._park(lane, pending, self._load(missing.aggregate_id), for_all=True)
        except ReceiptUnknown as unknown:
            self._park(lane, pending, self._look_up(pending, unknown), for_all=False)
        except TooSoon as soon:
            if not self._asides.put(pending, soon, (soon.ready_at - decision.now).total_seconds()):
                self._metrics.refused.inc()
                pending.refuse(Unavailable("too many commands are waiting; try again"))
        except Exception as defect:
            log_.exception(
                "command failed",
                command=type(pending.command).__name__,
                partition=self._partition,
                correlation_id=pending.command.correlation_id,
            )
            del decision.group.records[before:]  # all of a command or nothing
            decision.dirty = True
            pending.refuse(defect)
        if before and len(decision.group.records) > BATCH_MAX:
            self._take_back(decision, before)
            return False
        return not decision.dirty and len(decision.group.records) < BATCH_MAX

    def _take_back(self, decision: Decision, before: int) -> None:
        """The last command did not fit: it is decided again, first of the next group, on reloaded aggregates."""
        pending, _ = decision.group.outcomes.pop()
        del decision.group.records[before:]
        decision.dirty = True
        pending.receipts.clear()
        self._queue.appendleft(pending)

    async def _append(self, group: Group) -> None:
        self._debug("group decided", group, events=len(group.records))
        if group.records:
            try:
                last = await self._append_records(group)
            except WrongSequence:
                self._forget()
                self._metrics.conflicts.inc()
                log_.warning("another writer appended; deciding again", **self._about(group))
                self._decide_again(group)
                return
            except LogUnavailable as error:
                self._forget()
                log_.warning("the log took nothing; trying again", **self._about(group, error=repr(error)))
                self._decide_again(group)
                await asyncio.sleep(RETRY_S)
                return
            except LogError as error:
                self._forget()
                log_.error("append failed", **self._about(group, error=repr(error)))
                for pending, _ in group.outcomes:
                    pending.refuse(Unavailable("the log did not take it; try again"))
                return
            first = last - len(group.records) + 1
            self._expected = last
            self._metrics.sequence.set(last)
            self._committed(group, first)
            self._debug("group appended", group, first_sequence=first, last_sequence=last)
        for pending, outcome in group.outcomes:
            pending.settle(outcome)
        metrics.answered((pending.command, outcome) for pending, outcome in group.outcomes)

    def _about(self, group: Group, *, named_max: int = NAMED_MAX, **more: Any) -> dict[str, Any]:
        names = named((pending for pending, _ in group.outcomes), named_max)
        return {"stream": self.stream, "correlation_ids": names, **more}

    def _debug(self, event: str, group: Group, **more: Any) -> None:
        """A line for who follows a command: it names all of the group."""
        if group.outcomes and level_.isEnabledFor(logging.DEBUG):
            log_.debug(event, **self._about(group, named_max=GROUP_COMMANDS_MAX, **more))

    def _decide_again(self, group: Group) -> None:
        for pending, _ in reversed(group.outcomes):
            pending.receipts.clear()  # what was not there before another wrote may be there now
            if (parked := self._parked.get(pending.command.lane)) is None:
                self._queue.appendleft(pending)
            else:
                parked.insert(0, pending)  # whoever waits there was submitted later

    async def _append_records(self, group: Group) -> int:
        """Append, and after an unknown outcome find out: the same append again either lands or finds itself.

        Raises:
            WrongSequence: another writer's records stand there. LogUnavailable: nothing was stored.
            AppendUnknown: still not known after `PATIENCE_S`. RecordTooLarge: a defect of ours.
        """
        assert self._expected is not None
        expected, unknown, deadline = self._expected, False, self._loop.time() + PATIENCE_S
        while True:
            try:
                with self._metrics.append_seconds.time():
                    return await self._log.append(self.stream, group.records, expected_last_sequence=expected)
            except WrongSequence:
                if unknown and await self._is_ours(expected, group.append_id):
                    return expected + len(group.records)
                raise
            except (AppendUnknown, LogUnavailable) as error:
                if isinstance(error, LogUnavailable) and not unknown:
                    raise
                # From here on "unavailable" says nothing of the first try.
                unknown = True
                if self._loop.time() > deadline:
                    raise AppendUnknown(str(error)) from error
                self._metrics.unknown.inc()
                await asyncio.sleep(RETRY_S)

    async def _is_ours(self, expected: int, append_id: str) -> bool:
        """Whether the record right after `expected` is the first of this append. An append is all or nothing.

        Raises:
            AppendUnknown: it cannot be read now.
        """
        try:
            async for delivery in self._log.read(self.stream, after_sequence=expected, up_to_sequence=expected + 1):
                return delivery.headers.get(subjects.APPEND) == append_id
        except LogUnavailable as error:
            raise AppendUnknown(f"the tail of the log could not be read: {error}") from error
        raise AppendUnknown("the tail of the log could not be read yet")

    def _committed(self, group: Group, first: int) -> None:
        self._metrics.events.inc(len(group.records))
        self._metrics.group_size.observe(len(group.records))
        for aggregate_id, index in group.touched.items():
            loaded = self._cache.get(aggregate_id)
            if loaded is None:
                continue
            if self._repository.wants_snapshot(loaded) and isinstance(loaded.aggregate, Snapshotted):
                loaded.snapshot_version = loaded.aggregate.version
                snapshot = snapshot_of(self._family, loaded.aggregate, first + index)
                self._spawn(self._repository.save(snapshot))
            self._cache.put(aggregate_id, loaded)
        self._metrics.cache_bytes.set(self._cache.size_bytes)

    # -- the log's end --------------------------------------------------------------------------------------

    async def _find_end(self) -> None:
        if self._expected is not None:
            return
        last = await self._log.last(self.stream)
        if last is None:
            self._expected = await self._log.last_sequence(self.stream)
            return
        # 2 ms on: the last event's id may have borrowed from the millisecond after its time (`IdSequence`).
        self._ids.newest_ms = max(self._ids.newest_ms, decided_ms(last) + 2)
        self._expected = last.sequence

    def _forget(self) -> None:
        """The fence may have fallen: nothing in memory can be trusted."""
        self._cache.clear()
        self._expected = None
        self._generation += 1

    async def _wait_for_log(self, error: LogError) -> None:
        log_.warning("the log does not answer", stream=self.stream, error=repr(error))
        await asyncio.sleep(RETRY_S)
        now_s = self._loop.time()
        for pending in [pending for pending in self._queue if pending.deadline < now_s]:
            pending.refuse(Unavailable("the log does not answer; try again"))
        self._queue = deque(pending for pending in self._queue if not pending.future.done())

    # -- what a command may wait for ------------------------------------------------------------------------

    def _park(self, lane: str, pending: Pending, preparation: Coroutine[Any, Any, None], *, for_all: bool) -> None:
        """Prepare a command, and have its lane wait. `for_all`: what it needs, those behind it need as well."""
        self._parked[lane] = [pending]
        self._spawn(self._prepare(lane, None if for_all else pending, preparation))

    async def _prepare(self, lane: str, only: Pending | None, preparation: Coroutine[Any, Any, None]) -> None:
        failure: Exception | None = None
        try:
            await preparation
        except (DomainError, LogError) as error:
            log_.warning("a command could not be prepared", error=repr(error), **self._lane(lane))
            failure = Unavailable("what this needs could not be read; try again")
        except Exception as defect:
            log_.exception("a command could not be prepared", **self._lane(lane))
            failure = defect
        waiting = self._parked.pop(lane, [])
        if failure is not None:
            # A receipt of long ago is its own sender's affair: with Postgres down, a conversation goes on without it.
            for pending in waiting if only is None else [only]:
                pending.refuse(failure)
            waiting = [] if only is None else [pending for pending in waiting if pending is not only]
        self._queue.extendleft(reversed(waiting))  # before those of its lane that came meanwhile
        self._wake.set()

    def _lane(self, lane: str) -> dict[str, Any]:
        return {"lane": lane, "correlation_ids": named(self._parked.get(lane, []))}

    def _give_back(self, waiting: list[Pending]) -> None:
        self._queue.extend(waiting)
        self._wake.set()

    async def _load(self, aggregate_id: str) -> None:
        """Load an aggregate. What was read before the fence fell may be old by now, and is read again."""
        while True:
            generation = self._generation
            loaded = await self._repository.load(aggregate_id)
            if generation == self._generation:
                break
        if self._cache.get(aggregate_id) is None:
            self._cache.put(aggregate_id, loaded)

    async def _look_up(self, pending: Pending, unknown: ReceiptUnknown) -> None:
        try:
            async with asyncio.timeout(LOOK_UP_S):
                pending.receipts[unknown.sender_id, unknown.client_msg_id] = await self._receipts.receipt(
                    int(pending.command.lane),
                    unknown.sender_id,
                    unknown.client_msg_id,
                    min_version=unknown.up_to_version,
                )
        except TimeoutError:
            raise Unavailable("the read model does not answer") from None

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
