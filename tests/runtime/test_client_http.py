"""The HTTP client against a real server socket whose answers the test writes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime.client import ApiError, ConnectionLost, HttpClient, Retry

OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"a": 1}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 52\r\n\r\n"
    b'{"code":"unavailable","detail":"x","retryable":true}'
)


class Script:
    """Answers the requests that come, over however many connections, with the given bytes; `b""` hangs up."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.connections = 0
        self.hang_up_after = 0  # requests

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await _head(reader):
            length = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), 0)
            self.requests.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0)
            if not answer:
                break
            for byte in range(0, len(answer), 7):  # in pieces, as networks do
                writer.write(answer[byte : byte + 7])
                await writer.drain()
            if len(self.requests) == self.hang_up_after:
                break
        writer.close()
        await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Script, HttpClient]]:
    script = Script(list(answers))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with HttpClient(f"http://127.0.0.1:{port}", "first", timeout_s=5) as client:
            yield script, client
    finally:
        server.close()
        await server.wait_closed()


async def test_requests_share_one_connection_each_with_its_own_token() -> None:
    async with answering(OK, OK) as (script, client):
        assert await client.request("GET", "/v1/x", query={"limit": 5, "after": None}) == {"a": 1}
        assert await client.post("7", "hé", client_msg_id="m:1", token="second") == {"a": 1}
    assert script.connections == 1
    first, second = script.requests
    assert first.startswith(b"GET /v1/x?limit=5 HTTP/1.1\r\n")
    assert b"authorization: Bearer first\r\n" in first
    assert second.startswith(b"POST /v1/conversations/7/messages HTTP/1.1\r\n")
    assert b"authorization: Bearer second\r\n" in second
    assert second.endswith('{"client_msg_id":"m:1","body":{"type":"text","text":"hé"}}'.encode())


async def test_a_chunked_answer_and_one_that_closes_are_read_whole() -> None:
    chunked = b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n5\r\n": 2}\r\n0\r\n\r\n'
    closing = b'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\n{"a": 3}'
    async with answering(chunked, closing, OK) as (script, client):
        assert [await client.request("GET", "/") for _ in range(3)] == [{"a": 2}, {"a": 3}, {"a": 1}]
    assert script.connections == 2


async def test_a_problem_document_becomes_an_api_error() -> None:
    body = b'{"code":"invalid","title":"t","detail":"no such field","field":"bodi","retryable":false}'
    head = b"HTTP/1.1 422 Unprocessable\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as (_, client):
        with pytest.raises(ApiError, match="invalid: no such field") as raised:
            await client.request("GET", "/")
    assert (raised.value.status, raised.value.code, raised.value.retryable) == (422, "invalid", False)
    assert raised.value.fields["field"] == "bodi"


async def test_a_proxy_that_answers_for_a_server_away_is_worth_a_retry() -> None:
    async with answering(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops") as (_, client):
        with pytest.raises(ApiError) as raised:
            await client.request("GET", "/")
    assert raised.value.retryable


async def test_a_server_that_hangs_up_before_it_answers_is_a_lost_connection() -> None:
    async with answering(b"") as (_, client):
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client.request("GET", "/")


async def test_half_an_answer_is_a_lost_connection() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", b"") as (script, client):
        script.hang_up_after = 1
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client.request("GET", "/")


async def test_retrying_repeats_the_same_message_until_it_is_acked() -> None:
    async with answering(UNAVAILABLE, b"", OK) as (script, client):
        ack = await Retry(10)(lambda: client.post("7", "text", client_msg_id="m:1"))
    assert ack == {"a": 1}
    assert len(script.requests) == 3
    assert len({request.partition(b"\r\n\r\n")[2] for request in script.requests}) == 1


async def test_retrying_stops_when_its_time_is_up_and_at_a_final_refusal() -> None:
    async with answering(UNAVAILABLE, b'HTTP/1.1 404 No\r\ncontent-length: 20\r\n\r\n{"code":"not_found"}') as (
        _,
        client,
    ):
        with pytest.raises(ApiError, match="unavailable"):
            await Retry(0)(lambda: client.request("GET", "/"))
        with pytest.raises(ApiError, match="not_found"):
            await Retry(60)(lambda: client.request("GET", "/"))


async def test_nobody_there_is_a_lost_connection() -> None:
    with socket.socket() as unused:  # bound and not listening
        unused.bind(("127.0.0.1", 0))
        client = HttpClient(f"http://127.0.0.1:{unused.getsockname()[1]}", "t")
    with pytest.raises(ConnectionLost, match="cannot reach http://127"):
        await client.request("GET", "/")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", ""])
def test_what_is_not_a_servers_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        HttpClient(url, "t")
