"""An adapter without a server: acks and delivers at once, except that it stalls once, for a while."""

import asyncio
from collections.abc import Sequence

from runtime.bench.adapter import Inbox, Op, Seat, Session


class StallingAdapter:
    """See `runtime.bench.adapter.Adapter`. Its people share one stall: the tenth message begins it.

    Args:
        url: how long it lasts, in seconds.
    """

    operations = frozenset({Op.SEND})
    ack = "nothing"

    def __init__(self, url: str | None = None, *, lose: int = 0, twice: int = 0) -> None:
        self.stall_s = float(url or 0)
        self.lose, self.twice = lose, twice
        self.sessions: list[StallingSession] = []
        self.sent = 0
        self.held: list[tuple[StallingSession, int, str]] | None = None

    async def prepare(self, run: str, users: int, groups: Sequence[Sequence[int]]) -> list[Seat]:
        """See there."""
        return [
            Seat(f"{run}-{user}", "", {number: str(number) for number, members in enumerate(groups) if user in members})
            for user in range(users)
        ]

    async def connect(self, seat: Seat, inbox: Inbox, *, resumable: bool, follows: Session | None = None) -> Session:
        """See there."""
        self.sessions.append(StallingSession(self, seat, inbox))
        return self.sessions[-1]

    async def about(self) -> dict[str, str]:
        """See there."""
        return {"stalling": "1"}

    def pids(self) -> dict[str, int]:
        """See there."""
        return {}

    async def tidy(self) -> None:
        """See there."""

    def take(self, session: "StallingSession", number: int, text: str, group: str) -> None:
        """A message."""
        self.sent += 1
        if self.held is not None:
            self.held.append((session, number, text))
            return
        if self.sent == 10 and self.stall_s:
            self.held = [(session, number, text)]
            asyncio.get_running_loop().call_later(self.stall_s, self._go_on)
            return
        self._serve(session, number, text)

    def _go_on(self) -> None:
        held, self.held = self.held or [], None
        for one in held:
            self._serve(*one)

    def _serve(self, session: "StallingSession", number: int, text: str) -> None:
        for other in self.sessions:
            copies = 0 if self.sent == self.lose else 2 if self.sent == self.twice else 1
            for _ in range(copies):
                other.inbox.delivered(text.encode())
        session.inbox.done(number)


class StallingSession:
    """See `runtime.bench.adapter.Session`."""

    def __init__(self, adapter: StallingAdapter, seat: Seat, inbox: Inbox) -> None:
        self.adapter, self.seat, self.inbox = adapter, seat, inbox

    def send(self, group: str, number: int, text: str) -> None:
        """See there."""
        asyncio.get_running_loop().call_soon(self.adapter.take, self, number, text, group)

    def read(self, group: str, number: int) -> None:
        """Not among the operations."""
        raise NotImplementedError

    typing = read

    def keep_alive(self) -> None:
        """See there."""

    def drop(self) -> None:
        """See there."""

    async def close(self) -> None:
        """See there."""


class NoAdapter:
    """Lacks everything."""
