"""One client of the soak: it connects to whatever gateway answers, keeps what it is given, and resumes where it was.

It believes what the protocol promises and nothing more: it does not fill holes of its own accord. What is missing in
the end was lost.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from runtime.bench.socket import LightSocket, open_socket
from runtime.client import ClientError, SessionClosed
from tests.soak.holding import Account, Arrival, Holding
from tests.soak.pulling import Pulling, Pushed
from tests.soak.tally import Outage, Tally
from tests.soak.wire import Ack, Connected, Event, Refusal, event_of, line_of

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 4.0
AGAIN_S = 0.5  # after which a send that may be repeated is

_connected = msgspec.json.Decoder(Connected).decode
_encode = msgspec.json.Encoder().encode


class Watcher(Protocol):
    """Who is told of what happens to a client."""

    def delivered(self, event: Event, raw: bytes) -> None:
        """It was pushed an event, or pulled one that it had not; `raw` is its JSON."""
        ...

    def ended(self) -> None:
        """Its session ended: what it asked and was not answered never will be."""
        ...


class Client:
    """A client.

    Args:
        token: of its user.
        gateways: their URLs.
        known: the versions of its conversations from which on it is to be given everything.
        draw: its randomness.
        watcher: is told.

    Attributes:
        account: what it has.
        current: whether it is connected, and has what it had missed.
        gateways: their URLs; they may be others after a while.
    """

    def __init__(
        self,
        account: Account,
        token: str,
        gateways: Sequence[str],
        known: dict[str, int],
        tally: Tally,
        draw: random.Random,
        watcher: Watcher | None = None,
    ) -> None:
        self.account = account
        self.current = False
        self._token = token
        self.gateways = list(gateways)
        self._tally = tally
        self._draw = draw
        self._watcher = watcher
        self._holdings = account.holdings
        self._holdings.update({id_: Holding.after(version) for id_, version in known.items()})
        self._cursor: str | None = None
        self._fresh: set[str] = set()  # conversations of which more is here than the cursor says
        self._socket: LightSocket | None = None
        self._came_with = ""  # for who looks into a fault
        self._resuming = False
        self._pulling: Pulling | None = None
        self._last_id = 1
        self._asked: dict[int, Callable[[msgspec.Raw, msgspec.Raw], None]] = {}
        self._outbox: dict[str, dict[str, Any]] = {}  # sends without an ack, by client_msg_id
        self._outage: Outage | None = None
        self._away_s = 0.0
        self._leaving = False
        self._stays_away = False

    # -- its life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a client until cancelled."""
        while True:
            await asyncio.sleep(self._away_s)
            self._away_s = 0.0
            if self._stays_away:
                return
            gateway, socket = await self._connect()
            closed = await socket.closed
            self._on_closed(gateway, closed)

    def leave(self, away_s: float, *, silently: bool) -> None:
        """Be disconnected for a while."""
        if self._socket is not None and not self._leaving:
            self._leaving = True
            self._away_s = away_s
            (self._socket.drop if silently else self._socket.close)()

    def stay_away(self) -> None:
        """Disconnect for good."""
        self._stays_away = True
        self.leave(0, silently=False)

    def ping(self) -> None:
        """Say that the client is there."""
        if self._socket is not None:
            self._socket.send(b'{"id":0,"ping":{}}')

    async def _connect(self) -> tuple[int, LightSocket]:
        """A session of any gateway that answers, tried with ever longer waits, spread."""
        wait_s = FIRST_WAIT_S
        while True:
            for gateway in self._draw.sample(range(len(self.gateways)), len(self.gateways)):
                spoilt = self._cursor is not None and self._tally.spoils(self._draw)
                try:
                    socket = await open_socket(self.gateways[gateway], "", hello=self._hello(spoilt=spoilt))
                except ClientError as error:
                    self._tally.failed(error)
                    continue
                self._begin(socket, spoilt=spoilt)
                return gateway, socket
            await asyncio.sleep(self._draw.uniform(0.2, 1) * wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _hello(self, *, spoilt: bool) -> bytes:
        connect: dict[str, Any] = {
            "token": self._token,
            "device_id": self.account.client.rpartition("/")[2],
            "device_kind": "mobile",
        }
        if self._cursor is not None:
            connect["cursor"] = self._cursor[:-1] if spoilt else self._cursor
            connect["versions"] = {id_: self._holdings[id_].version for id_ in self._fresh}
        return _encode({"id": 1, "connect": connect})

    def _begin(self, socket: LightSocket, *, spoilt: bool) -> None:
        self._socket = socket
        self._leaving = False
        self._came_with = f"resumed at {self._cursor}, ahead in {len(self._fresh)}: {sorted(self._fresh)[:5]}"
        answer = _connected(line_of(socket.answer).ok)
        if self._cursor is None:
            self._tally.connects += 1
            self._cursor = answer.cursor
            self._become_current()
        elif answer.recovered:
            self._tally.reconnects += 1
            self._tally.recovered += 1
            for id_ in self._fresh:
                self._holdings[id_].resumed()
            self._resuming = True  # until the cursor that comes after what was missed
        else:
            self._tally.reconnects += 1
            self._tally.reset += 1
            self._tally.spoilt += spoilt
            held = self._cursor[:-1] if spoilt and self._draw.random() < 0.5 else self._cursor
            self._pulling = Pulling(self, held, answer.cursor)
        socket.listen(self.take)
        for client_msg_id in list(self._outbox):
            self._send(client_msg_id)

    def _become_current(self) -> None:
        self.current = True
        self._resuming = False
        if self._outage is not None:
            self._outage.current_s = time.monotonic()
            self._outage = None

    def _on_closed(self, gateway: int, closed: SessionClosed) -> None:
        self.current = False
        self._socket = None
        self._resuming = False
        if self._pulling is not None:
            self._pulling.cancel()
            self._pulling = None
        self._asked.clear()
        if self._watcher is not None:
            self._watcher.ended()
        if self._leaving:
            return
        self._tally.errors[str(closed)] += 1
        if self._outage is None:
            self._outage = Outage(gateway, time.monotonic())
            self._tally.outages.append(self._outage)
        self._away_s = self._draw.uniform(0, FIRST_WAIT_S)

    # -- what it is given -----------------------------------------------------------------------------------

    def take(self, payload: bytes) -> None:
        """One frame: one or more JSON objects, one a line."""
        for text in payload.split(b"\n"):
            line = line_of(text)
            if line.event:
                self._on_event(line.event)
            elif line.id > 0:
                answered = self._asked.pop(line.id, None)
                if answered is not None:
                    answered(line.ok, line.error)
            elif line.cursor:
                self._on_cursor(line.cursor)

    def _on_event(self, raw: msgspec.Raw) -> None:
        event = event_of(raw)
        self._tally.deliveries += 1
        if not event.version:
            self._on_own(event)
        elif self._pulling is not None:
            self._pulling.pushed.append((event, bytes(raw)))
        else:
            self._push(event, bytes(raw))

    def _push(self, event: Event, raw: bytes) -> None:
        """Take an event that was pushed."""
        holding = self._holdings.get(event.conversation_id)
        if holding is None:
            holding = self._holdings[event.conversation_id] = Holding.after(event.version - 1)
        if self._watcher is not None:
            self._watcher.delivered(event, raw)
        arrival = holding.push(event.version, raw)
        if arrival is Arrival.NEW:
            self._fold(holding, event)
        elif arrival is Arrival.DOUBLED:
            self.account.doubled += 1
            came = self._came_with
            self._tally.note(
                f"{self.account.client}: doubled {event.type} {event.version} of {event.conversation_id}, which it has"
                f" as {[(span.first, span.last) for span in holding.spans]}; {came}"
            )
        elif arrival is Arrival.DISORDERED:
            self.account.disordered += 1

    def pull(self, event: Event, raw: bytes) -> None:
        """Take an event that was pulled."""
        holding = self._holdings.get(event.conversation_id)
        if holding is None:
            if event.type != "member.added" or event.data.user_id != self.account.user_id:
                return  # from before the user came
            holding = self._holdings[event.conversation_id] = Holding.after(event.version - 1)
        if holding.pull(event.version, raw):
            if self._watcher is not None:
                self._watcher.delivered(event, raw)
            self._tally.pulled += 1
            self._fold(holding, event)

    def version(self, conversation_id: str) -> int:
        """Up to where it has a conversation; 0 for one it has not heard of."""
        holding = self._holdings.get(conversation_id)
        return holding.version if holding is not None else 0

    def _fold(self, holding: Holding, event: Event) -> None:
        self._fresh.add(event.conversation_id)
        data = event.data
        if event.type == "message.posted":
            holding.last_seq = data.seq
            if data.sender_id == self.account.user_id:
                holding.read_seq = max(holding.read_seq, data.seq)
        elif data.user_id == self.account.user_id and event.type in ("member.added", "member.removed"):
            holding.is_member = event.type == "member.added"

    def _on_own(self, event: Event) -> None:
        if event.type == "read.moved" and (holding := self._holdings.get(event.conversation_id)) is not None:
            holding.read_seq = max(holding.read_seq, event.data.seq)

    def _on_cursor(self, cursor: str) -> None:
        if self._pulling is not None:
            self._pulling.pushed.append(cursor)
            return
        self._adopt(cursor)
        if self._resuming:
            self._become_current()

    def _adopt(self, cursor: str) -> None:
        """Stand at a cursor that says of all that was pushed; not of what was pulled beyond that."""
        self._cursor = cursor
        holdings = self._holdings
        self._fresh = {id_ for id_ in self._fresh if holdings[id_].version > holdings[id_].pushed}

    def pulled(self, pushed: deque[Pushed]) -> None:
        """Everything was pulled that had been missed: take what was pushed meanwhile."""
        self._pulling = None
        for one in pushed:
            if isinstance(one, str):
                self._adopt(one)
            else:
                self._push(*one)
        self._become_current()

    def read_up_to(self, conversation_id: str, read_seq: int) -> None:
        """The user has read so far, as a pull says."""
        if (holding := self._holdings.get(conversation_id)) is not None:
            holding.read_seq = max(holding.read_seq, read_seq)

    # -- what it asks ---------------------------------------------------------------------------------------

    @property
    def has_session(self) -> bool:
        """Whether it can ask anything now."""
        return self._socket is not None

    def ask(self, method: str, parameters: object, answered: Callable[[msgspec.Raw, msgspec.Raw], None]) -> None:
        """Make a request of the session that stands. A session that ends first never answers."""
        assert self._socket is not None
        self._last_id += 1
        self._asked[self._last_id] = answered
        self._socket.send(_encode({"id": self._last_id, method: parameters}))

    def reconnect(self) -> None:
        """Begin again: what was asked was not answered."""
        if self._socket is not None:
            self._socket.drop()

    def post(self, conversation_id: str, client_msg_id: str, text: str) -> None:
        """Post a message, as often as it takes until it is acked or refused for good."""
        body = {"type": "text", "text": text}
        self._outbox[client_msg_id] = {
            "conversation_id": conversation_id,
            "client_msg_id": client_msg_id,
            "body": body,
        }
        self._tally.posted += 1
        self._send(client_msg_id)

    def _send(self, client_msg_id: str) -> None:
        if self._socket is None or client_msg_id not in self._outbox:
            return  # sent when there is a session; or acked in the meantime
        message = self._outbox[client_msg_id]

        def answered(ok: msgspec.Raw, error: msgspec.Raw) -> None:
            if ok:
                ack = msgspec.json.decode(ok, type=Ack)
                del self._outbox[client_msg_id]
                self.account.acked.append((ack.conversation_id, ack.version, client_msg_id))
                self._tally.acked += 1
                return
            refusal = msgspec.json.decode(error, type=Refusal)
            self._tally.errors[f"send: {refusal.code}"] += 1
            if refusal.retryable:
                asyncio.get_running_loop().call_later(AGAIN_S, self._send, client_msg_id)
            else:
                del self._outbox[client_msg_id]

        self.ask("send", message, answered)

    @property
    def unacked(self) -> int:
        """Messages under way."""
        return len(self._outbox)

    def may_post(self, conversation_id: str) -> bool:
        """Whether it is there, and in the conversation as far as it knows."""
        holding = self._holdings.get(conversation_id)
        return self.current and holding is not None and holding.is_member

    def read(self, conversation_id: str) -> None:
        """Move the read marker to the newest message."""
        holding = self._holdings[conversation_id]
        if self._socket is None or holding.read_seq >= holding.last_seq:
            return

        def answered(ok: msgspec.Raw, error: msgspec.Raw) -> None:
            if error:
                self._tally.errors[f"read: {msgspec.json.decode(error, type=Refusal).code}"] += 1

        self.ask("read", {"conversation_id": conversation_id, "seq": holding.last_seq}, answered)
