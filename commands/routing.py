"""Getting a command to the writer of its partition, in this process or another.

`WriterNode` runs the writers of the partitions of each family that the ring gives to this node, and answers
`cmd.<family>.<p>`.
`Router` is the dispatcher: to a local writer without leaving the process, else over the bus to whoever answers.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from commands.command import Command, Result
from commands.handlers import AnyCommand, AnyResult
from commands.ring import Ring
from commands.writer import PartitionWriter
from domain import errors
from domain.errors import DomainError, Unavailable
from domain.ids import partition_of
from streams import subjects
from streams.ports import NODE_RENEW_S, Bus, BusError, LogError, Nodes, NoResponder, Subscription

REQUEST_S = 6.0  # a writer answers within its own patience (5 s); the rest is the way
MOVING_S = 3.0  # how long a partition may be without an owner before a command is refused
MOVING_RETRY_S = 0.05

log_ = structlog.get_logger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_command = msgspec.msgpack.Decoder(AnyCommand).decode


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes back over the bus: a result, or a domain error by its code."""

    result: AnyResult | None = None
    code: str = ""
    detail: str = ""
    field: str | None = None


_decode_reply = msgspec.msgpack.Decoder(Reply).decode


class WriterNode:
    """One node's share of the write side.

    Args:
        make_writer: makes the writer of a partition of a family; called whenever the ring gives this node one.
        data: what other nodes may know of this one (its roles), as announced.
    """

    def __init__(
        self,
        node_id: str,
        nodes: Nodes,
        bus: Bus,
        make_writer: Callable[[str, int], PartitionWriter],
        *,
        partitions: int,
        data: bytes = b"",
    ) -> None:
        self.node_id = node_id
        self._nodes = nodes
        self._bus = bus
        self._make_writer = make_writer
        self._partitions = partitions
        self._data = data
        self._running: dict[tuple[str, int], tuple[PartitionWriter, asyncio.Task[None], Subscription]] = {}
        self._moves = asyncio.Lock()
        self._settled = asyncio.Event()
        self._ring = Ring(())
        self._changed = asyncio.Event()

    def writer(self, family: str, partition: int) -> PartitionWriter | None:
        """The writer of a partition of a family, if this node runs it."""
        running = self._running.get((family, partition))
        return running[0] if running else None

    async def ready(self) -> None:
        """Raises LogUnavailable while this node does not know which partitions are its own."""
        if not self._settled.is_set():
            raise Unavailable("partitions are not assigned yet")

    async def run(self) -> None:
        """Be a node until cancelled: announce, follow the ring, start and stop writers; then withdraw."""
        watching: Subscription | None = None
        renewing = asyncio.create_task(self._renew())
        try:
            watching = await self._nodes.watch(self._on_nodes)
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._follow(self._ring)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if watching is not None:
                await watching.close()
            await self._withdraw()
            await self._follow(Ring(()))

    async def _renew(self) -> None:
        while True:
            try:
                await self._nodes.announce(self.node_id, self._data)
            except (LogError, BusError, OSError) as error:
                log_.warning("could not announce this node", error=repr(error))
            await asyncio.sleep(NODE_RENEW_S)

    async def _withdraw(self) -> None:
        try:
            await self._nodes.withdraw(self.node_id)
        except (LogError, BusError, OSError) as error:
            log_.warning("could not withdraw this node; its time to live ends soon", error=repr(error))

    def _on_nodes(self, nodes: dict[str, bytes]) -> None:
        ring = Ring(nodes)
        if self.node_id in nodes and ring.nodes != self._ring.nodes:
            self._ring = ring
            self._changed.set()

    async def _follow(self, ring: Ring) -> None:
        owned = {
            (family, partition)
            for family in subjects.FAMILIES
            for partition in ring.owned(self.node_id, family, self._partitions)
        }
        async with self._moves:
            for lost in sorted(self._running.keys() - owned):
                writer, task, door = self._running.pop(lost)
                await door.close()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                log_.info("gave up partition", stream=writer.stream)
            for family, partition in sorted(owned - self._running.keys()):
                writer = self._make_writer(family, partition)
                task = asyncio.create_task(writer.run())
                door = await self._bus.respond(subjects.command(family, partition), _answer(writer))
                self._running[family, partition] = (writer, task, door)
                log_.info("took over partition", stream=writer.stream)
        self._settled.set()


def _answer(writer: PartitionWriter) -> Callable[[bytes], "asyncio.Future[bytes]"]:
    def answer(request: bytes) -> "asyncio.Future[bytes]":
        # Submitted before the first await: requests are decided in the order they came.
        return asyncio.ensure_future(_reply(writer.submit(_decode_command(request))))

    return answer


async def _reply(future: "asyncio.Future[Result]") -> bytes:
    try:
        return _encode(Reply(result=await future))  # type: ignore[arg-type]
    except DomainError as refusal:
        return _encode(Reply(code=refusal.code, detail=refusal.detail, field=refusal.field))


class Router:
    """The dispatcher (`commands.ports.Dispatcher`).

    Args:
        local: the writers of this process, if it has that role.
    """

    def __init__(self, bus: Bus, *, partitions: int, local: WriterNode | None = None) -> None:
        self._bus = bus
        self._partitions = partitions
        self._local = local

    def dispatch(self, command: Command) -> "asyncio.Future[Result]":
        """See `commands.ports.Dispatcher.dispatch`."""
        try:
            partition = partition_of(command.slot, self._partitions)
        except DomainError as refusal:  # what is asked names no slot
            refused: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            refused.set_exception(refusal)
            return refused
        writer = self._local.writer(command.family, partition) if self._local else None
        if writer is not None:
            return writer.submit(command)
        return asyncio.ensure_future(self._request(subjects.command(command.family, partition), _encode(command)))

    async def _request(self, subject: str, request: bytes) -> Result:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MOVING_S
        while True:
            try:
                answer = await self._bus.request(subject, request, timeout_s=REQUEST_S)
                break
            except NoResponder:
                # Certainly without effect: the partition is moving. Wait for its next owner.
                if loop.time() > deadline:
                    raise Unavailable("no writer has this partition; try again") from None
                await asyncio.sleep(MOVING_RETRY_S)
            except BusError:
                raise Unavailable("the writer did not answer; try again") from None
        reply = _decode_reply(answer)
        if reply.result is not None:
            return reply.result
        raise errors.BY_CODE[reply.code](reply.detail, field=reply.field)
