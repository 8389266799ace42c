"""A crowd: clients that only listen, in a conversation of their own, and come back all at once when gateways die."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from domain.ids import partition_of, slot_of
from runtime.client import HttpClient, Retry
from tests.faults.population import Made
from tests.faults.recording import ACCOUNTS, Recorder
from tests.soak.load import Share
from tests.soak.population import Seat
from tests.soak.processes import LoadProcess

PROCESSES: Final = 2
MEMBERS_PER_CALL: Final = 999
PATIENCE_S: Final = 60.0
STAY_S: Final = 1e9  # nobody goes away of their own accord
EVERY_S: Final = 1.0  # a message to all of them


class Crowd:
    """Gather it, have it settle, and dismiss it.

    Attributes:
        conversation_id: of its conversation.
        owner: who made it, is no part of the crowd, and posts there.
    """

    def __init__(self, name: str, size: int, gateways: Sequence[str], token: Callable[[str], str]) -> None:
        self.conversation_id = ""
        self.owner = f"{name}-owner"
        self._users = [f"{name}-crowd-{number}" for number in range(size)]
        self._gateways = list(gateways)
        self._token = token
        self._loads: list[LoadProcess] = []

    async def gather(self, partitions: int) -> Made:
        """Make the conversation, and connect everybody; the conversation as it was before that."""
        async with HttpClient(self._gateways[0], self._token(self.owner)) as client:
            retry = Retry(for_s=PATIENCE_S)
            view: dict[str, Any] = {}
            for start in range(0, len(self._users), MEMBERS_PER_CALL):
                some = self._users[start : start + MEMBERS_PER_CALL]
                if not view:
                    view = await retry(
                        lambda some=some: client.create_conversation(  # type: ignore[misc]
                            "group", some, client_conversation_id=self.owner
                        )
                    )
                else:
                    id_ = view["conversation_id"]
                    view = await retry(lambda some=some, id_=id_: client.change_members(id_, add=some))  # type: ignore[misc]
        self.conversation_id = view["conversation_id"]
        known = {self.conversation_id: view["version"]}
        for number in range(PROCESSES):
            mine = self._users[number::PROCESSES]
            share = Share(
                name=f"{self.owner}-{number}",
                gateways=self._gateways,
                seats=[Seat(f"{user_id}/phone", user_id) for user_id in mine],
                tokens={user_id: self._token(user_id) for user_id in mine},
                known=dict.fromkeys(mine, known),
                postings=[],
                rate=0,
                stay_s=STAY_S,
            )
            self._loads.append(LoadProcess(share))
        await asyncio.gather(*(load.tell("connect") for load in self._loads))
        partition = partition_of(slot_of(int(self.conversation_id)), partitions)
        return Made(self.owner, partition, [self.owner], self.conversation_id, view["version"])

    async def settled(self, version: int) -> list[str]:
        """Wait until everybody is connected and has the conversation up to a version; who has not."""
        targets = {user_id: {self.conversation_id: version} for user_id in self._users}
        lacking = await asyncio.gather(*(load.tell("settle", targets, PATIENCE_S) for load in self._loads))
        return [what for of_load in lacking for what in of_load]

    async def dismiss(self, recorder: Recorder) -> None:
        """Record what everybody has, and end them."""
        for load in self._loads:
            for account in await load.tell("accounts"):
                recorder.write(ACCOUNTS, account)
        await self.end()

    async def end(self) -> None:
        """End the processes. Idempotent."""
        while self._loads:
            with contextlib.suppress(Exception):
                await self._loads.pop().end()
