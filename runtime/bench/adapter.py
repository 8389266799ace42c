"""What a server must be able to do to be put under load: the protocol between load generator and adapters.

An adapter turns four operations into whatever its server speaks. It makes no load, keeps no time and counts nothing:
that is the load generator's, so that every server is measured by the same hand. Methods of a session that the load
calls are plain functions that write and return; what comes back is told to the session's `Inbox`, on the event loop.

A class is an adapter if it can be called with `url=None` or `url="…"` and has what `Adapter` says. It is made once in
each process of the load and once in the process that prepares, so what they share goes through seats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self


class Op(StrEnum):
    """An operation of the load."""

    SEND = "send"
    READ = "read"
    TYPING = "typing"
    RECONNECT = "reconnect"


@dataclass(frozen=True, slots=True)
class Seat:
    """A user, and where the user belongs.

    Attributes:
        credential: what the user is let in with; of the adapter's making.
        groups: the adapter's name of each of the user's groups, by the group's number.
    """

    user: str
    credential: str
    groups: Mapping[int, str]


class Inbox(Protocol):
    """Where a session says what its server said. Calls must be in the order in which things came."""

    def delivered(self, payload: bytes) -> None:
        """Messages came, in bytes that hold the text of each whole; the marks in the texts say which."""

    def done(self, number: int) -> None:
        """The server has answered an operation."""

    def refused(self, number: int, code: str) -> None:
        """The server has refused an operation."""

    def ended(self, reason: str) -> None:
        """The session is over, and nobody here has ended it."""


class Session(Protocol):
    """One connection of one user, who hears every group of the seat from now on."""

    def send(self, group: str, number: int, text: str) -> None:
        """Post a message. The inbox is told `done` when the server has acked it. `text` is ASCII without quotes."""

    def read(self, group: str, number: int) -> None:
        """Ask for the newest page of a group's history; `done` when it is here."""

    def typing(self, group: str, number: int) -> None:
        """Signal that the user writes; `done` at once where the server does not answer that."""

    def keep_alive(self) -> None:
        """Called every 20 seconds: say that the client is there, if the server wants to hear it."""

    def drop(self) -> None:
        """Be gone without a word. `ended` is not told."""

    async def close(self) -> None:
        """End in good order. `ended` is not told."""


class Adapter(Protocol):
    """A kind of server.

    Attributes:
        operations: what it can do.
        ack: what its ack promises, in a few words; printed beside the figures.
    """

    operations: frozenset[Op]
    ack: str

    def __init__(self, url: str | None = None) -> None: ...

    async def prepare(self, run: str, users: int, groups: Sequence[Sequence[int]]) -> list[Seat]:
        """Make users and groups of them.

        Args:
            run: a word to tell this run's users and groups from others'.
            groups: the members of each, by the user's number, the one who makes it first.

        Returns:
            A seat for each user.

        Raises:
            BenchError, ClientError: the server cannot be reached, or refuses.
        """

    async def connect(self, seat: Seat, inbox: Inbox, *, resumable: bool, follows: Session | None = None) -> Session:
        """A session of the seat's user, who hears their groups when this returns.

        Args:
            resumable: another may follow it.
            follows: the user's session before this one: where the server can, the new one begins where it ended.

        Raises:
            BenchError, ClientError: nobody there, or not let in.
        """

    async def about(self) -> dict[str, str]:
        """The server's version, and what else a reader needs to judge a figure."""

    def pids(self) -> dict[str, int]:
        """The server's processes, where known: their memory and CPU time are measured."""

    async def tidy(self) -> None:
        """Take away what `prepare` made, where that is no more than a call."""


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """An adapter, to be made in whatever process needs it.

    Attributes:
        name: in tables.
        factory: `package.module:Class`.
        options: what the class is called with. May hold secrets: never printed.
    """

    name: str
    factory: str
    options: Mapping[str, object]

    def with_name(self, name: str) -> Self:
        """The same under another name."""
        return type(self)(name, self.factory, self.options)
