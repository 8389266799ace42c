"""The load under which faults are injected: clients that post by a plan, whatever becomes of it, and are pushed to.

It is an open loop: messages are due when the plan says, not when the server has time for them. A message whose outcome
is not known is mostly sent again, through the same door or another, as clients do; some are left as they are, so that
both kinds of unknown outcomes are seen. Every attempt is recorded when its outcome is known.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from tests.faults.population import Made
from tests.faults.recording import ACCOUNTS, ATTEMPTS, Attempt, Outcome, Recorder, digest_of
from tests.faults.sender import ASKED_MAX, WITHOUT_EFFECT, Ack, Message, Sender
from tests.soak.client import Client
from tests.soak.tally import Tally

TICK_S: Final = 0.01
HTTP_SHARE: Final = 0.15  # of the attempts; the others go by WebSocket, while there is a session
HTTP_AT_ONCE: Final = 100  # more wait for nothing: in an outage each waits for its time-out
AGAIN_SHARE: Final = 0.75  # of the attempts whose outcome is not known are repeated
AGAIN_S: Final = (0.2, 1.0)
AGAIN_MAX: Final = 4_000  # messages that wait to be repeated; what would be more is left unknown
DUPLICATE_SHARE: Final = 0.03  # of the acked messages are sent once more, for no reason
DUPLICATE_S: Final = (0.0, 5.0)
READS_A_MESSAGE: Final = 0.05
PING_S: Final = 15.0


class Load:
    """The senders of one case, and what they post.

    Args:
        conversations: made, with their ids.
        rate: messages a second, in all.

    Attributes:
        acked: messages acked so far.
        shed: messages that were due and not even tried, because too many were under way.
    """

    def __init__(
        self,
        conversations: Sequence[Made],
        gateways: Sequence[str],
        token: Callable[[str], str],
        recorder: Recorder,
        *,
        rate: float,
        draw: random.Random,
    ) -> None:
        self.recorder = recorder
        self.draw = draw
        self.tally = Tally()
        self.acked = self.shed = 0
        self.codes: Counter[str] = Counter()
        self._conversations = list(conversations)
        self._gateways, self._token = gateways, token
        self._outsiders: list[Sender] = []
        self._rate = rate
        users = sorted({user_id for made in conversations for user_id in made.members})
        self._senders = {
            user_id: Sender(
                self,
                user_id,
                token(user_id),
                gateways,
                {made.conversation_id: made.version for made in conversations if user_id in made.members},
            )
            for user_id in users
        }
        self._again = 0
        self._stopping = False
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._living: list[asyncio.Task[None]] = []
        self._posting: asyncio.Task[None] | None = None

    @property
    def clients(self) -> list[Client]:
        """Those that are pushed to."""
        return [sender.client for sender in self._senders.values()]

    async def connect(self, patience_s: float) -> None:
        """Connect all clients. TimeoutError when they are not let in."""
        self._living = [asyncio.create_task(client.run()) for client in self.clients]
        self._living.append(asyncio.create_task(self._ping()))
        async with asyncio.timeout(patience_s):
            while not all(client.current for client in self.clients):
                await asyncio.sleep(TICK_S)

    def move(self, gateways: Sequence[str]) -> None:
        """The gateways are elsewhere from now on."""
        for sender in self._senders.values():
            sender.move(gateways)

    def begin(self) -> None:
        """Post by the plan until `end`."""
        self._posting = asyncio.create_task(self._post())

    async def end(self, patience_s: float) -> None:
        """Post nothing new, repeat what is not known until it is, and then wait for no answer any more."""
        assert self._posting is not None
        self._posting.cancel()
        await asyncio.gather(self._posting, return_exceptions=True)
        give_up_s = time.monotonic() + patience_s
        while self._again or any(sender.under_way for sender in self._senders.values()) or self._tasks:
            if time.monotonic() > give_up_s:
                break
            await asyncio.sleep(TICK_S)
        self._stopping = True
        for sender in self._senders.values():
            sender.give_up("the run ended")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._raise()

    async def settled(self, targets: dict[str, dict[str, int]], patience_s: float) -> bool:
        """Wait until every client has everything; whether it has.

        Args:
            targets: for each user the version to be reached in each conversation.
        """
        give_up_s = time.monotonic() + patience_s
        while any(
            not sender.client.current
            or any(sender.client.version(id_) < version for id_, version in targets.get(user_id, {}).items())
            for user_id, sender in self._senders.items()
        ):
            self._raise()
            if time.monotonic() > give_up_s:
                return False
            await asyncio.sleep(0.05)
        return True

    async def close(self) -> None:
        """Disconnect, and record what each client has."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        for sender in self._senders.values():
            sender.client.leave(0, silently=True)
            self.recorder.write(ACCOUNTS, sender.client.account)
        for sender in (*self._senders.values(), *self._outsiders):
            await sender.close()

    # -- for who posts beside the plan ----------------------------------------------------------------------

    def sender(self, user_id: str) -> Sender:
        """One of the senders."""
        return self._senders[user_id]

    def outsider(self, user_id: str) -> Sender:
        """Another one, who is in none of the conversations, posts beside the plan by HTTP, and is not pushed to."""
        self._outsiders.append(Sender(self, user_id, self._token(user_id), self._gateways, {}))
        return self._outsiders[-1]

    def message(self, sender: Sender, conversation: str, text: str, intended_s: float | None = None) -> Message:
        """A new message, not sent yet."""
        number = next(self._numbers)
        due_s = time.monotonic() if intended_s is None else intended_s
        return Message(f"m{number}", sender, conversation, f"{number} {text}", due_s)

    def by_http(self, message: Message) -> None:
        """Try by HTTP, without waiting for the outcome."""
        self._spawn(message.sender.post(message))

    # -- what comes of an attempt ---------------------------------------------------------------------------

    def settle(
        self,
        message: Message,
        session: str,
        number: int,
        sent_s: float,
        outcome: Outcome,
        code: str = "",
        ack: Ack | None = None,
    ) -> None:
        """Record an attempt whose outcome is known, and decide what the client does next."""
        attempt = Attempt(
            message.client_msg_id,
            message.sender.user_id,
            message.conversation,
            session,
            number,
            message.intended_s,
            sent_s,
            time.monotonic(),
            digest_of(message.text.encode()),
            outcome,
            code,
        )
        if ack is not None:
            attempt = msgspec.structs.replace(
                attempt, seq=ack.seq, version=ack.version, message_id=ack.message_id, duplicate=ack.duplicate
            )
            if not message.acked:
                message.acked = True
                self.acked += 1
                if self.draw.random() < DUPLICATE_SHARE:
                    self._later(message, self.draw.uniform(*DUPLICATE_S))
        else:
            self.codes[code] += 1
        self.recorder.write(ATTEMPTS, attempt)
        undecided = outcome == "unknown" or code == WITHOUT_EFFECT
        if undecided and not message.acked and self._again < AGAIN_MAX and self.draw.random() < AGAIN_SHARE:
            self._later(message, self.draw.uniform(*AGAIN_S))
        elif not message.acked:
            message.left = True

    def _later(self, message: Message, after_s: float) -> None:
        if self._stopping:
            return
        self._again += 1

        def again() -> None:
            self._again -= 1
            if not self._stopping:
                self._try(message)

        asyncio.get_running_loop().call_later(after_s, again)

    def _try(self, message: Message) -> None:
        by_http = self.draw.random() < HTTP_SHARE or not message.sender.client.has_session
        if by_http and len(self._tasks) < HTTP_AT_ONCE:
            self._spawn(message.sender.post(message))
        else:
            message.sender.ask(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the plan -------------------------------------------------------------------------------------------

    async def _post(self) -> None:
        began_s, due = time.monotonic(), 0
        while True:
            await asyncio.sleep(TICK_S)
            while (intended_s := began_s + due / self._rate) <= time.monotonic():
                due += 1
                self._post_one(intended_s)

    def _post_one(self, intended_s: float) -> None:
        made = self.draw.choice(self._conversations)
        sender = self._senders[self.draw.choice(made.members)]
        if len(sender.under_way) >= ASKED_MAX or self._again >= AGAIN_MAX:
            self.shed += 1
            return
        text = "fault " * self.draw.randint(1, 20)
        self._try(self.message(sender, made.conversation_id, text, intended_s))
        if self.draw.random() < READS_A_MESSAGE and sender.client.may_post(made.conversation_id):
            sender.client.read(made.conversation_id)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            for client in self.clients:
                client.ping()

    def _raise(self) -> None:
        """What a task of ours ended with is an error of the harness, not of what it looks at."""
        for task in self._living:
            if task.done() and not task.cancelled():
                task.result()
