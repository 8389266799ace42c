"""XMPP: groups are multi-user chat rooms (XEP-0045), history is the archive of a room (XEP-0313). Made for ejabberd.

The ack of a message is its reflection: a room sends every occupant each message it has accepted, its sender too. In
ejabberd that is after the message was given to the archive and put in order, which is what a Riverrun ack says,
except that nothing is synced to a disk by then. The ack of stream management (XEP-0198) says less, that the connection
has read the stanza, before any room has seen it; so it is not asked for.

The client is written here because a general one costs too much: slixmpp takes about 220 µs for a message to a room,
and a load generator must not be what is measured. It trusts the server to speak plainly: no TLS, SASL
PLAIN, stanzas on one line after the other.
"""

import asyncio
import base64
import re
import secrets
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from runtime.bench.adapter import Inbox, Op, Seat, Session
from runtime.bench.errors import AdapterError, TargetError

LOCAL: Final = "xmpp://127.0.0.1:5222"
DOMAIN: Final = "localhost"
ANSWER_S: Final = 30.0
PAGE: Final = 50
AT_ONCE: Final = 32  # accounts that are made, and rooms that are joined
RESOURCE: Final = "bench"

_END: Final = b"</message>"
_PAGE_END: Final = re.compile(rb"<iq [^>]*\bid='r(\d+)'[^>]*?(?:/>|>.*?</iq>)", re.DOTALL)
_ID: Final = re.compile(rb"\bid='s(\d+)'")
_TYPE_ERROR: Final = b"type='error'"


class XmppAdapter:
    """See `adapter.Adapter`.

    Args:
        url: `xmpp://host:port`, and `/domain` where that is not `localhost`. Accounts are made by in-band registration
            (XEP-0077), which the server must allow.
        server_pids: the server's processes by name.
    """

    operations = frozenset(Op)
    ack = "reflected by the room, in order, handed to the archive; not fsynced"

    def __init__(self, url: str | None = None, server_pids: dict[str, int] | None = None) -> None:
        parts = urlsplit(url or LOCAL)
        if parts.scheme != "xmpp" or not parts.hostname:
            raise AdapterError(f"{url!r} is no URL of an XMPP server, xmpp://host:port")
        self._host, self._port = parts.hostname, parts.port or 5222
        self._domain = parts.path.strip("/") or DOMAIN
        self._pids = dict(server_pids or {})

    async def prepare(self, run: str, users: int, groups: Sequence[Sequence[int]]) -> list[Seat]:
        """See `adapter.Adapter`. Rooms are made by who enters first, at `connect`."""
        places: list[dict[int, str]] = [{} for _ in range(users)]
        for number, members in enumerate(groups):
            for member in members:
                places[member][number] = f"bench-{run}-{number}@conference.{self._domain}"
        password = secrets.token_hex(8)
        seats = [Seat(f"bench-{run}-{number}", password, place) for number, place in enumerate(places)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def register(seat: Seat) -> None:
            async with gate:
                await self._register(seat)

        await asyncio.gather(*(register(seat) for seat in seats))
        return seats

    async def _register(self, seat: Seat) -> None:
        stream = await self._stream()
        try:
            stream.write(
                "<iq type='set' id='register'><query xmlns='jabber:iq:register'>"
                f"<username>{seat.user}</username><password>{seat.credential}</password></query></iq>"
            )
            await stream.answer(rb"<iq [^>]*type='result'[^>]*/?>", "an account was not made")
        finally:
            stream.abort()

    async def connect(self, seat: Seat, inbox: Inbox, *, resumable: bool, follows: Session | None = None) -> Session:
        """See `adapter.Adapter`. A session that follows another enters its rooms anew and has missed what was said."""
        del resumable, follows
        stream = await self._stream()
        try:
            await stream.authenticate(seat.user, seat.credential)
            for room in seat.groups.values():
                await stream.enter(room, seat.user)
        except BaseException:
            stream.abort()
            raise
        return XmppSession(stream, seat.user, inbox)

    async def about(self) -> dict[str, str]:
        """See `adapter.Adapter`."""
        [seat] = await self.prepare(f"about-{secrets.token_hex(4)}", 1, [])
        stream = await self._stream()
        try:
            await stream.authenticate(seat.user, seat.credential)
            stream.write(f"<iq type='get' id='version' to='{self._domain}'><query xmlns='jabber:iq:version'/></iq>")
            answer = await stream.answer(rb"<iq [^>]*id='version'.*?</iq>", "no version")
            name, version = (re.search(rb"<%b>(.*?)</" % tag, answer) for tag in (b"name", b"version"))
            return {(name[1] if name else b"server").decode(): (version[1] if version else b"?").decode()}
        finally:
            stream.abort()

    def pids(self) -> dict[str, int]:
        """See `adapter.Adapter`."""
        return dict(self._pids)

    async def tidy(self) -> None:
        """Accounts and rooms stay: they belong to a server made for this."""

    async def _stream(self) -> "XmppStream":
        try:
            async with asyncio.timeout(ANSWER_S):
                _, stream = await asyncio.get_running_loop().create_connection(
                    lambda: XmppStream(self._domain), self._host, self._port
                )
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise TargetError(f"cannot reach an XMPP server at {where}: {error.strerror or error}") from error
        await stream.open()
        return stream


class XmppStream(asyncio.Protocol):
    """A stream to a server: dialogue first, then whatever `on_data` takes."""

    def __init__(self, domain: str) -> None:
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._domain = domain
        self._buffer = b""
        self._came = asyncio.Event()
        self._session: XmppSession | None = None
        self._transport: asyncio.Transport

    def write(self, text: str) -> None:
        """Write stanzas, unless the stream has ended."""
        self._transport.write(text.encode())

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()

    def listen(self, session: "XmppSession") -> None:
        """Hand what comes to a session from now on."""
        self._session = session
        session.take(self._buffer)
        self._buffer = b""

    async def answer(self, pattern: bytes, failure: str) -> bytes:
        """Wait for what matches, and forget it and what came before.

        Raises:
            TargetError: an error came, nothing in time, or the end.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                while (found := re.search(pattern, self._buffer, re.DOTALL)) is None:
                    if refused := re.search(rb"<(?:failure|stream:error).*|<[^>]*type='error'.*", self._buffer):
                        raise TargetError(f"XMPP server: {failure}: {refused[0][:200].decode(errors='replace')}")
                    if self.closed.done():
                        raise TargetError(f"XMPP server: {failure}: it hung up")
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError as error:
            raise TargetError(f"XMPP server: {failure}: no answer within {ANSWER_S:g} s") from error
        self._buffer = self._buffer[found.end() :]
        return found[0]

    async def open(self) -> None:
        """Begin a stream, at first or after authentication."""
        self.write(
            f"<?xml version='1.0'?><stream:stream to='{self._domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        await self.answer(rb"</stream:features>", "no stream")

    async def authenticate(self, user: str, password: str) -> None:
        """Log in, bind a resource and be there."""
        word = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.write(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{word}</auth>")
        await self.answer(rb"<success[^>]*>", "not let in")
        await self.open()
        self.write(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            f"<resource>{RESOURCE}</resource></bind></iq>"
        )
        await self.answer(rb"<iq [^>]*id='bind'.*?</iq>", "no resource")
        self.write("<presence/>")

    async def enter(self, room: str, nick: str) -> None:
        """Become an occupant, without the room's history."""
        self.write(
            f"<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x>"
            "</presence>"
        )
        # The room's subject comes last of what it says to who enters.
        await self.answer(rb"<subject(?:/>|>[^<]*</subject>)</message>", f"{room} was not entered")

    # -- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.take(data)
        else:
            self._buffer += data
            self._came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(str(exc or "the server hung up"))
        self._came.set()


class XmppSession:
    """See `adapter.Session`."""

    def __init__(self, stream: XmppStream, user: str, inbox: Inbox) -> None:
        self._stream = stream
        self._inbox = inbox
        self._mine = f"/{user}'".encode()  # ends the sender's address in what a room reflects
        self._leaving = False
        self._reading = 0
        self._rest = b""
        stream.listen(self)
        stream.closed.add_done_callback(lambda closed: self._ended(closed.result()))

    def send(self, group: str, number: int, text: str) -> None:
        """See `adapter.Session`."""
        self._stream.write(f"<message to='{group}' type='groupchat' id='s{number}'><body>{text}</body></message>")

    def read(self, group: str, number: int) -> None:
        """See `adapter.Session`."""
        self._reading += 1
        self._stream.write(
            f"<iq to='{group}' type='set' id='r{number}'><query xmlns='urn:xmpp:mam:2'>"
            f"<set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max><before/></set></query></iq>"
        )

    def typing(self, group: str, number: int) -> None:
        """See `adapter.Session`: a chat state (XEP-0085), unanswered."""
        self._stream.write(
            f"<message to='{group}' type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
        )
        self._inbox.done(number)

    def keep_alive(self) -> None:
        """See `adapter.Session`: white space is enough."""
        self._stream.write(" ")

    def drop(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._stream.abort()

    async def close(self) -> None:
        """See `adapter.Session`."""
        self._leaving = True
        self._stream.write("</stream:stream>")
        try:
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._stream.closed)
        except TimeoutError:
            self._stream.abort()

    def _ended(self, reason: str) -> None:
        if not self._leaving:
            self._inbox.ended(reason)

    def take(self, data: bytes) -> None:
        """Whatever came."""
        *messages, rest = (self._rest + data).split(_END)
        for message in messages:
            self._message(message)
        if self._reading and rest:
            for page in _PAGE_END.finditer(rest):
                self._page(page)
            rest = _PAGE_END.sub(b"", rest)
        self._rest = rest

    def _message(self, message: bytes) -> None:
        if self._reading:
            for page in _PAGE_END.finditer(message):
                self._page(page)
        if b"urn:xmpp:mam:2' " in message or b"<result " in message:
            return  # a page of history, which is no delivery
        if _TYPE_ERROR in message:
            if number := _ID.search(message):
                self._inbox.refused(int(number[1]), _condition(message))
            return
        self._inbox.delivered(message)
        if self._mine in message and (number := _ID.search(message)):
            self._inbox.done(int(number[1]))

    def _page(self, page: "re.Match[bytes]") -> None:
        self._reading -= 1
        if _TYPE_ERROR in page[0]:
            self._inbox.refused(int(page[1]), _condition(page[0]))
        else:
            self._inbox.done(int(page[1]))


def _condition(stanza: bytes) -> str:
    """The word of an error."""
    found = re.search(rb"<([a-z-]+) xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'", stanza)
    return found[1].decode() if found else "error"
