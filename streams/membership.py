"""Who is in the deployment: this process announced to the others, and the others watched.

A node that dies is noticed three ways. One that leaves says so. One that is killed loses its connection, so nobody
answers for it any more: each node asks its neighbour in the order of names, and strikes out one for whom nobody answers
for a second. One that hangs, or is cut off, is no longer announced, and its time to live ends.

What is seen only ever saves conflicts: the log keeps two owners of a partition apart (`streams.ring`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from streams import subjects
from streams.ports import NODE_RENEW_S, NODE_TTL_S, Bus, BusError, LogError, Nodes, NoResponder, Subscription
from streams.ring import Ring

ASK_EVERY_S: Final = 0.25
ASK_S: Final = 1.0  # for an answer; one that is late is the time to live's to judge
GONE_AFTER: Final = 4  # askings in a row that nobody answers: a client that lost its server is back in less

log_ = structlog.get_logger(__name__)


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A partition's stream that a node works on for one of its roles.

    Attributes:
        since_ms: when it began, Unix milliseconds.
        took_ms: from when the node saw that it was its own, until it began.
        position: for a reader, up to which sequence it has done its work.
        waiting: for a writer, how many commands wait for it.
    """

    stream: str
    since_ms: int
    took_ms: int
    position: int | None = None
    waiting: int | None = None


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node tells the others of itself.

    Attributes:
        url: of its API, if it serves one.
        monitoring_url: of its `/metrics` and `/healthz`, if it listens for those apart from the API.
        held: by role, what it works on.
    """

    roles: tuple[str, ...]
    started_at_ms: int
    host: str = ""
    pid: int = 0
    url: str = ""
    monitoring_url: str = ""
    held: dict[str, list[Held]] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Announcement).decode


def announcements(nodes: Mapping[str, bytes]) -> dict[str, Announcement]:
    """The announcements of nodes, by id; one that cannot be read is of another release, and left out."""
    read: dict[str, Announcement] = {}
    for node_id, data in nodes.items():
        try:
            read[node_id] = _decode(data)
        except msgspec.MsgspecError:
            log_.warning("a node's announcement cannot be read", node=node_id)
    return read


class Membership:
    """This node among the others, while `run` runs.

    Args:
        describe: this node's announcement as it is now; asked at each renewal, so it is quick.
    """

    def __init__(self, node_id: str, nodes: Nodes, bus: Bus, describe: Callable[[], Announcement]) -> None:
        self.node_id = node_id
        self._nodes = nodes
        self._bus = bus
        self._describe = describe
        self._loop = asyncio.get_running_loop()
        self._alive: dict[str, Announcement] = {}  # as last seen in the registry
        self._members: dict[str, Announcement] = {}  # as acted upon
        self._is_seen = False  # whether this node is in the registry, as far as is known
        self._callbacks: list[Callable[[], None]] = []
        self._renew = asyncio.Event()
        self._leaving = False
        self._settling: asyncio.TimerHandle | None = None

    def ring(self, role: str) -> Ring:
        """The nodes that have a role."""
        return Ring(node_id for node_id, node in self._members.items() if role in node.roles)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be told whenever the members, or their roles, may have changed. It must not block."""
        self._callbacks.append(callback)

    def announce_soon(self) -> None:
        """Have the others know now what `describe` says, not at the next renewal."""
        self._renew.set()

    async def run(self) -> None:
        """Be a member until cancelled; leave before that (`leave`)."""
        door = await self._bus.respond(subjects.node(self.node_id), _here)
        watching: Subscription | None = None
        tasks = [asyncio.create_task(self._announce()), asyncio.create_task(self._ask_neighbour())]
        try:
            watching = await self._nodes.watch(self._on_nodes)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if watching is not None:
                await watching.close()
            await door.close()
            if self._settling is not None:
                self._settling.cancel()

    async def leave(self) -> None:
        """Say that this node leaves, so that others take over at once what it holds. Idempotent."""
        if self._leaving:
            return
        self._leaving = True
        try:
            await self._nodes.withdraw(self.node_id)
        except (LogError, BusError, OSError) as error:
            log_.warning("could not withdraw this node; its time to live ends soon", error=repr(error))

    async def _announce(self) -> None:
        while not self._leaving:
            try:
                await self._nodes.announce(self.node_id, _encode(self._describe()))
            except (LogError, BusError, OSError) as error:
                log_.warning("could not announce this node", error=repr(error))
            try:
                async with asyncio.timeout(NODE_RENEW_S):
                    await self._renew.wait()
            except TimeoutError:
                continue
            self._renew.clear()
        await asyncio.Event().wait()

    # -- the others -----------------------------------------------------------------------------------------

    def _on_nodes(self, nodes: dict[str, bytes]) -> None:
        self._alive = announcements(nodes)
        if self.node_id not in self._alive:
            # The registry lost us, or lost everything with its server: unknown is not gone.
            self._is_seen = False
            return
        if not self._is_seen:
            self._is_seen = True
            if self._members:
                # Back after a gap: those who were there before are given the time to announce themselves as well.
                self._settling = self._loop.call_later(NODE_TTL_S, self._settle)
        self._accept(self._alive if self._settling is None else {**self._members, **self._alive})

    def _settle(self) -> None:
        self._settling = None
        if self._is_seen:
            self._accept(self._alive)

    def _accept(self, members: dict[str, Announcement]) -> None:
        before, self._members = self._members, members
        if {name: node.roles for name, node in before.items()} != {name: node.roles for name, node in members.items()}:
            for callback in self._callbacks:
                callback()

    async def _ask_neighbour(self) -> None:
        """Each node is asked after by one other, however many there are."""
        asked, misses = "", 0
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            neighbour = self._neighbour()
            if neighbour != asked:
                asked, misses = neighbour, 0
            if not neighbour:
                continue
            try:
                await self._bus.request(subjects.node(neighbour), b"", timeout_s=ASK_S)
                misses = 0
            except NoResponder:
                misses += self._is_seen  # who is not seen itself cannot judge
            except BusError:
                misses = 0
            if misses >= GONE_AFTER:
                misses = 0
                await self._strike_out(neighbour)

    def _neighbour(self) -> str:
        names = sorted(self._alive)
        if self.node_id not in names or len(names) == 1:
            return ""
        return names[(names.index(self.node_id) + 1) % len(names)]

    async def _strike_out(self, node_id: str) -> None:
        log_.warning("a node is gone: nobody answers for it", node=node_id)
        try:
            await self._nodes.withdraw(node_id)  # one that is alive after all announces itself within a second
        except (LogError, OSError) as error:
            log_.warning("could not strike out a node; its time to live ends soon", node=node_id, error=repr(error))


async def _here(_request: bytes) -> bytes:
    return b""
