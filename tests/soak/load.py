"""The clients of one load process: connected, made to post, read and go away, and asked what they have."""

import asyncio
import contextlib
import random
from itertools import cycle
from typing import Any

import msgspec

from tests.soak.client import Client
from tests.soak.holding import Account
from tests.soak.population import Seat, Size
from tests.soak.tally import Tally

CONNECTING_AT_ONCE = 40
PING_S = 20.0
TICK_S = 0.05
CONNECT_S = 120.0
ACKS_S = 30.0  # for the acks of what is under way when posting stops
SHARES: dict[Size, float] = {"small": 0.85, "large": 0.14, "largest": 0.01}  # of the messages
READS_A_MESSAGE = 0.3


class Posting(msgspec.Struct, frozen=True):
    """A conversation to post in, and the users of this process that are in it from the beginning."""

    conversation_id: str
    size: Size
    users: list[str]


class Share(msgspec.Struct, frozen=True):
    """What one load process does.

    Attributes:
        tokens: of users.
        known: for each user the conversations they are in, with the version that was there before the clients.
        rate: messages a second.
        stay_s: how long a client stays connected, on average.
    """

    name: str
    gateways: list[str]
    seats: list[Seat]
    tokens: dict[str, str]
    known: dict[str, dict[str, int]]
    postings: list[Posting]
    rate: float
    stay_s: float


class Load:
    """Every coroutine here is a command of `tests.soak.processes`."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._draw = random.Random(share.name)
        self._tally = Tally()
        self._clients = [
            Client(
                Account(seat.client, seat.user_id),
                share.tokens[seat.user_id],
                share.gateways,
                share.known.get(seat.user_id, {}),
                self._tally,
                self._draw,
            )
            for seat in share.seats
        ]
        self._by_user: dict[str, list[Client]] = {}
        for client in self._clients:
            self._by_user.setdefault(client.account.user_id, []).append(client)
        self._living: list[asyncio.Task[None]] = []
        self._busy: list[asyncio.Task[None]] = []
        self._posts = 0

    async def connect(self) -> None:
        """Connect all."""
        self._living.append(asyncio.create_task(self._ping()))
        async with asyncio.timeout(CONNECT_S):
            for batch in _batched(self._clients, CONNECTING_AT_ONCE):
                self._living += [asyncio.create_task(client.run()) for client in batch]
                while not all(client.current for client in batch):
                    await asyncio.sleep(0.01)

    async def begin(self) -> None:
        """Post, read, go away and come back, until `quieten`."""
        for work in (self._post(), self._read(), self._go_away()):
            self._busy.append(asyncio.create_task(work))

    async def quieten(self) -> None:
        """Stop that, and wait for the acks that are due."""
        for task in self._busy:
            task.cancel()
        await asyncio.wait(self._busy)
        self._raise()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACKS_S):
                while any(client.unacked for client in self._clients):
                    await asyncio.sleep(0.02)

    async def settle(self, targets: dict[str, dict[str, int]], patience_s: float) -> list[str]:
        """Wait until every client is connected and at its targets.

        Args:
            targets: for each user the version to be reached in each conversation.

        Returns:
            What is not so when the time is up.
        """
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + patience_s
        while (lacking := self._lacking(targets)) and clock() < give_up_s:
            await asyncio.sleep(0.1)
        return lacking

    async def accounts(self) -> list[Account]:
        """What each client has."""
        self._raise()
        return [client.account for client in self._clients]

    async def leave(self, users: list[str]) -> None:
        """Have all clients of these users disconnect for good."""
        for user_id in users:
            for client in self._by_user.get(user_id, ()):
                client.stay_away()

    async def tally(self) -> Tally:
        """What was counted so far."""
        self._raise()
        tally = self._tally
        tally.current = sum(client.current for client in self._clients)
        tally.unacked = sum(client.unacked for client in self._clients)
        return tally

    def _lacking(self, targets: dict[str, dict[str, int]]) -> list[str]:
        lacking = []
        for client in self._clients:
            if not client.current:
                lacking.append(f"{client.account.client} is not current")
            for id_, version in targets.get(client.account.user_id, {}).items():
                if client.version(id_) < version:
                    lacking.append(f"{client.account.client} has {client.version(id_)} of {version} of {id_}")
        return lacking

    # -- what clients do ------------------------------------------------------------------------------------

    async def _at(self, rate: float, act: Any) -> None:
        """Do something at a rate a second, for ever."""
        clock = asyncio.get_running_loop().time
        began_s, done = clock(), 0
        while True:
            await asyncio.sleep(TICK_S)
            for _ in range(int((clock() - began_s) * rate) - done):
                done += 1
                act()

    async def _post(self) -> None:
        postings = {size: [p for p in self._share.postings if p.size == size] for size in SHARES}
        for of_size in postings.values():
            self._draw.shuffle(of_size)
        turns = {size: cycle(of_size) for size, of_size in postings.items() if of_size}
        sizes = list(turns)
        weights = [SHARES[size] for size in sizes]

        def post() -> None:
            posting = next(turns[self._draw.choices(sizes, weights)[0]])
            for _ in range(4):
                client = self._draw.choice(self._by_user[self._draw.choice(posting.users)])
                if client.may_post(posting.conversation_id):
                    self._posts += 1
                    text = "soak " * self._draw.randint(2, 40)
                    client.post(posting.conversation_id, f"{self._share.name}-{self._posts}", text)
                    return

        await self._at(self._share.rate if sizes else 0, post)

    async def _read(self) -> None:
        def read() -> None:
            client = self._draw.choice(self._clients)
            for id_ in self._draw.sample(sorted(client.account.holdings), min(3, len(client.account.holdings))):
                if client.may_post(id_):
                    client.read(id_)

        await self._at(self._share.rate * READS_A_MESSAGE, read)

    async def _go_away(self) -> None:
        longest_s = self._share.stay_s / 5

        def go() -> None:
            client = self._draw.choice(self._clients)
            if client.current:
                away_s = longest_s * self._draw.random() ** 4  # mostly short
                client.leave(away_s, silently=self._draw.random() < 0.5)

        await self._at(len(self._clients) / self._share.stay_s, go)

    async def _ping(self) -> None:
        while True:
            for batch in _batched(self._clients, 1 + len(self._clients) // 20):
                await asyncio.sleep(PING_S / 20)
                for client in batch:
                    client.ping()

    def _raise(self) -> None:
        """What a task of ours ended with is an error of the soak's own, not of what it looks at."""
        for task in (*self._busy, *self._living):
            if task.done() and not task.cancelled():
                task.result()


def _batched(clients: list[Client], size: int) -> list[list[Client]]:
    return [clients[start : start + size] for start in range(0, len(clients), size)]
