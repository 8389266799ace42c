"""The parser gives what nats-py's own gives, however the bytes are cut; and refuses what is not the protocol."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from streams.jetstream.parser import LINE_MAX, WireParser


class Told(NamedTuple):
    """A message as it was dispatched, or what else the server said."""

    what: str
    values: tuple[Any, ...] = ()


class Client:
    """What a parser calls of its client."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.message(sid, subject, reply, data, headers or b"")

    def message(self, *values: Any) -> None:
        self.told.append(Told("message", values))

    async def _process_ping(self) -> None:
        self.told.append(Told("ping"))

    async def _process_pong(self) -> None:
        self.told.append(Told("pong"))

    async def _process_err(self, error: str) -> None:
        self.told.append(Told("error", (error,)))

    async def _process_info(self, info: Any) -> None:
        self.told.append(Told("info", (info,)))


token = st.text("abcXYZ0189.$_-", min_size=1, max_size=12).map(str.encode)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    data = draw(st.binary(max_size=80))
    head = [draw(token), b"%d" % draw(st.integers(0, 10**6)), *draw(st.lists(token, max_size=1))]
    if draw(st.booleans()):
        block = b"NATS/1.0\r\n" + draw(st.sampled_from((b"", b"A: b\r\n", b"A: b\r\nMSG: x y 3\r\n"))) + b"\r\n"
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (b" ".join(head), len(block), len(block) + len(data), block, data)
    return b"MSG %b %d\r\n%b\r\n" % (b" ".join(head), len(data), data)


said = st.one_of(
    messages(),
    st.sampled_from((b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"port":1}\r\n')),
)


async def parsed(parser: Parser, client: Client, pieces: Sequence[bytes]) -> list[Told]:
    for piece in pieces:
        await parser.parse(piece)
    return client.told


@given(st.lists(said, max_size=12), st.lists(st.integers(0, 2_000), max_size=12))
async def test_it_gives_what_the_library_gives_however_the_bytes_are_cut(
    all_said: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(all_said)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[begin:end] for begin, end in pairwise(places)]
    theirs, ours = Client(), Client()
    expected = await parsed(Parser(theirs), theirs, pieces)
    assert await parsed(WireParser(ours, ours.message), ours, pieces) == expected  # type: ignore[arg-type]
    assert len(expected) == len(all_said) - all_said.count(b"+OK\r\n")


@pytest.mark.parametrize(
    "line",
    [
        *(b"MSG a 1\r\n", b"MSG a x 1\r\n", b"MSG a 1 r r 1\r\n", b"MSG a 1 -5\r\n", b"HMSG a 1 1\r\n"),
        *(b"HMSG a 1 9 4\r\n", b"HMSG a 1 -1 4\r\n", b"MSGa 1 1\r\n", b"nonsense\r\n", b"\r\n", b"x" * (LINE_MAX + 1)),
    ],
)
async def test_what_is_not_the_protocol_is_refused(line: bytes) -> None:
    client = Client()
    parser = WireParser(client, client.message)  # type: ignore[arg-type]
    await parser.parse(b"PING\r\n")
    with pytest.raises(ProtocolError):
        await parser.parse(line)
    assert client.told == [Told("ping")]
    parser.reset()  # as before it connects again
    await parser.parse(b"MSG a 1 2\r\nhi\r\n")
    assert client.told[1:] == [Told("message", (1, b"a", b"", b"hi", b""))]


async def test_nothing_of_a_lost_connection_is_left_for_the_next() -> None:
    class Losing(Client):
        async def _process_err(self, error: str) -> None:
            await super()._process_err(error)
            parser.reset()  # as the library does

    client = Losing()
    parser = WireParser(client, client.message)  # type: ignore[arg-type]
    await parser.parse(b"-ERR 'Stale Connection'\r\nMSG a 1 2\r\nhi\r\nMSG a 1 9\r\nwhat")
    await parser.parse(b"PING\r\nMSG b 2 2\r\nho\r\n")
    told = [Told("error", ("'stale connection'",)), Told("ping"), Told("message", (2, b"b", b"", b"ho", b""))]
    assert client.told == told


async def test_a_large_message_is_joined_once_when_all_of_it_is_there() -> None:
    client = Client()
    parser = WireParser(client, client.message)  # type: ignore[arg-type]
    data = b"x" * 1_000_000
    stream = b"MSG a 1 %d\r\n%b\r\nPING\r\n" % (len(data), data)
    for begin in range(0, len(stream), 32_768):
        await parser.parse(stream[begin : begin + 32_768])
    assert client.told == [Told("message", (1, b"a", b"", data, b"")), Told("ping")]
