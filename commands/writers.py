"""The writers of this process, and the door of each: `cmd.<family>.<partition>`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from commands.command import Result
from commands.handlers import AnyCommand, AnyResult
from commands.writer import PartitionWriter
from domain.errors import DomainError
from streams import subjects
from streams.ports import Bus

_encode = msgspec.msgpack.Encoder().encode
_decode_commands = msgspec.msgpack.Decoder(list[AnyCommand]).decode


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes back over the bus for a command: a result, or a domain error by its code."""

    result: AnyResult | None = None
    code: str = ""
    detail: str = ""
    field: str | None = None


class Writers:
    """The writers that run here.

    Args:
        make_writer: makes the writer of a partition of a family, whenever this process is to have one.
    """

    def __init__(self, bus: Bus, make_writer: Callable[[str, int], PartitionWriter]) -> None:
        self._bus = bus
        self._make_writer = make_writer
        self._running: dict[tuple[str, int], PartitionWriter] = {}

    def find(self, family: str, partition: int) -> PartitionWriter | None:
        """The writer of a partition of a family, if it runs here."""
        return self._running.get((family, partition))

    def waiting(self, family: str, partition: int) -> int:
        """How many commands wait for a writer."""
        writer = self.find(family, partition)
        return writer.waiting if writer else 0

    @asynccontextmanager
    async def write(self, family: str, partition: int) -> AsyncIterator["asyncio.Future[None]"]:
        """Write for a partition while the context lasts (`streams.shares.Duty`).

        At its end nothing more is taken, the append under way ends, and the rest is answered `unavailable`.
        """
        writer = self._make_writer(family, partition)
        running = asyncio.create_task(writer.run(), name=f"writer {writer.stream}")
        try:
            door = await self._bus.respond(subjects.command(family, partition), _answer(writer))
            self._running[family, partition] = writer
            try:
                yield running
            finally:
                del self._running[family, partition]
                await door.close()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _answer(writer: PartitionWriter) -> Callable[[bytes], "asyncio.Future[bytes]"]:
    def answer(request: bytes) -> "asyncio.Future[bytes]":
        # Submitted before the first await: requests are decided in the order they came.
        return asyncio.ensure_future(_replies([writer.submit(command) for command in _decode_commands(request)]))

    return answer


async def _replies(futures: Sequence["asyncio.Future[Result]"]) -> bytes:
    return _encode([await _reply(future) for future in futures])


async def _reply(future: "asyncio.Future[Result]") -> Reply:
    try:
        return Reply(result=await future)  # type: ignore[arg-type]
    except DomainError as refusal:
        return Reply(code=refusal.code, detail=refusal.detail, field=refusal.field)
