"""The same command sent again: at once, soon, later, after restarts; inside and outside of every window there is.

The windows: NATS's own of two minutes, the 512 receipts that a conversation keeps, and its snapshot, which is written
after 1,000 events. What is outside of all of them is answered from the read model, and without it not at all.
"""

import asyncio
import random
import time
from typing import Final

from tests.faults.load import Load
from tests.faults.population import Made
from tests.faults.sender import Message, Sender

COUNT: Final = 1_300  # messages: more than a snapshot's worth, and more than twice the receipts
RECEIPTS: Final = 512
AT_ONCE: Final = 100
TWINS: Final = 40
SAMPLE: Final = 20
ACKED_S: Final = 60.0


class Repeats:
    """Messages of one sender in one conversation, and their repetitions."""

    def __init__(self, load: Load, made: Made, draw: random.Random) -> None:
        self.messages: list[Message] = []
        self._load = load
        self._made = made
        self._draw = draw
        self._sender: Sender = load.sender(made.members[0])

    async def fill(self) -> None:
        """Post more than any window holds, all from one session."""
        for number in range(COUNT):
            while len(self._sender.under_way) >= AT_ONCE or not self._sender.client.has_session:
                await asyncio.sleep(0.005)
            self._post(f"fill {number}")
        await self._acked()

    async def twins(self) -> None:
        """Post messages through two doors in the same moment: one is new, the other the same."""
        for number in range(TWINS):
            message = self._post(f"twin {number}")
            self._load.by_http(message)
        await self._acked()

    async def again(self) -> None:
        """Send old messages again, through all doors at once: the newest, those about the window's edge, the oldest."""
        edge = len(self.messages) - RECEIPTS
        chosen = [self.messages[0], self.messages[-1], *self.messages[edge - 2 : edge + 2]]
        for message in chosen + self._draw.sample(self.messages, SAMPLE):
            self._sender.ask(message)
            self._load.by_http(message)
            await asyncio.sleep(0.01)

    def _post(self, text: str) -> Message:
        message = self._load.message(self._sender, self._made.conversation_id, text)
        self.messages.append(message)
        self._sender.ask(message)
        return message

    async def _acked(self) -> None:
        give_up_s = time.monotonic() + ACKED_S
        while not all(message.acked or message.left for message in self.messages) and time.monotonic() < give_up_s:
            await asyncio.sleep(0.02)
