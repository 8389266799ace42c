"""Pulling: how a client that was not recovered becomes current, over the very session that pushes to it meanwhile."""

import asyncio
from collections import deque
from typing import Any, Protocol

import msgspec

from tests.soak.wire import Changed, Event, Events, Refusal, Synced, event_of

CONVERSATIONS = 50  # of one answer
EVENTS = 100  # of one conversation in it
PAGE = 200
PATIENCE_S = 20.0  # without an answer for so long, the client connects anew
AGAIN_S = 0.5


Pushed = tuple[Event, bytes] | str  # an event with its JSON, or a cursor


class Puller(Protocol):
    """The client that pulls."""

    def ask(self, method: str, parameters: object, answered: Any) -> None: ...
    def pull(self, event: Event, raw: bytes) -> None: ...
    def version(self, conversation_id: str) -> int: ...
    def read_up_to(self, conversation_id: str, read_seq: int) -> None: ...
    def pulled(self, pushed: "deque[Pushed]") -> None: ...
    def reconnect(self) -> None: ...


class Unanswered(Exception):
    """The server refused what it should not."""


class Pulling:
    """One pull, under way from when it is made.

    Args:
        held: the cursor the client came with.
        cursor: of the session: everything after it is pushed.

    Attributes:
        pushed: what came meanwhile, in order: events, and cursors, the session's own first.
    """

    def __init__(self, client: Puller, held: str, cursor: str) -> None:
        self.pushed: deque[Pushed] = deque([cursor])
        self._client = client
        self._task = asyncio.create_task(self._pull(held))

    def cancel(self) -> None:
        """The session ended first."""
        self._task.cancel()

    async def _pull(self, held: str | None) -> None:
        try:
            await self._sync(held)
        except (TimeoutError, Unanswered):
            self._client.reconnect()
        else:
            self._client.pulled(self.pushed)

    async def _sync(self, cursor: str | None) -> None:
        while True:
            where = {} if cursor is None else {"cursor": cursor}
            raw = await self._answer("sync", {**where, "limit": CONVERSATIONS, "events": EVENTS})
            page = msgspec.json.decode(raw, type=Synced)
            if page.reset:  # the cursor cannot be used: everything there ever was, of which the client has the most
                cursor = None
                continue
            for changed in page.conversations:
                await self._take(changed)
                self._client.read_up_to(changed.conversation_id, changed.read_seq)
            for left in page.left:  # whose pages may not be read any more
                for raw in left.events:
                    self._client.pull(event_of(raw), bytes(raw))
            if page.done:
                return
            cursor = page.cursor

    async def _take(self, changed: Changed) -> None:
        """The events of one conversation; in pages where there are more than were given."""
        events = [(event_of(raw), bytes(raw)) for raw in changed.events]
        after = self._client.version(changed.conversation_id)
        if changed.events_truncated and (not events or events[0][0].version > after + 1):
            more = True
            while more:
                asked = {"conversation_id": changed.conversation_id, "after": after, "limit": PAGE}
                page = msgspec.json.decode(await self._answer("events", asked), type=Events)
                for raw in page.events:
                    event = event_of(raw)
                    self._client.pull(event, bytes(raw))
                    after = event.version
                more = page.has_more
        for event, text in events:
            self._client.pull(event, text)

    async def _answer(self, method: str, parameters: object) -> msgspec.Raw:
        """The result of a request, repeated while the server says that repeating may help.

        Raises:
            TimeoutError: no answer. Unanswered: refused.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                future: asyncio.Future[tuple[msgspec.Raw, msgspec.Raw]] = loop.create_future()

                def answered(ok: msgspec.Raw, error: msgspec.Raw, future: "asyncio.Future[Any]" = future) -> None:
                    if not future.done():
                        future.set_result((ok, error))

                self._client.ask(method, parameters, answered)
                ok, error = await future
                if ok:
                    return ok
                refusal = msgspec.json.decode(error, type=Refusal)
                if not refusal.retryable:
                    raise Unanswered(f"{method}: {refusal.code}")
                await asyncio.sleep(AGAIN_S)
