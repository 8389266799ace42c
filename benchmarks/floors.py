"""The floors: what the servers below give when nothing of Riverrun is in the way, asked as barely as possible."""

import base64
import json
import multiprocessing
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.bare_fanout import serve
from runtime.bench.histogram import Percentiles, percentiles

STREAM: Final = "BENCH"
BATCH: Final = 200
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as the log stores it: header lines and body."""

    headers: bytes
    data: bytes


class RawNats:
    """A blocking connection to nats-server that knows just enough of its protocol."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self.inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._lines.readline()  # INFO
        options = {"user": parts.username, "pass": parts.password, "verbose": False, "headers": True, "lang": "bench"}
        self._socket.sendall(f"CONNECT {json.dumps(options)}\r\nSUB {self.inbox} 1\r\n".encode())

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def request(self, data: bytes) -> Any:
        """Write a prepared request whose reply goes to `inbox`; the JSON of its reply."""
        self._socket.sendall(data)
        while True:
            line = self._lines.readline()
            if line.startswith(b"MSG "):
                body = self._lines.read(int(line.split()[-1]) + 2)
                return json.loads(body)
            if line == b"PING\r\n":
                self._socket.sendall(b"PONG\r\n")
            elif not line or line.startswith((b"-ERR", b"HMSG")):
                raise RuntimeError(f"nats-server: {line!r}")

    def api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call of the JetStream API."""
        payload = json.dumps(body).encode() if body is not None else b""
        head = f"PUB $JS.API.{subject} {self.inbox} {len(payload)}\r\n".encode()
        answer: dict[str, Any] = self.request(head + payload + b"\r\n")
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer

    def last_stored(self, stream: str) -> Stored:
        """The newest message of a stream, without the headers that placed it."""
        last = self.api(f"STREAM.INFO.{stream}")["state"]["last_seq"]
        message = self.api(f"STREAM.MSG.GET.{stream}", {"seq": last})["message"]
        lines = base64.b64decode(message.get("hdrs", "")).split(b"\r\n")[1:]
        own = [line for line in lines if line and not line.startswith(b"Nats-")]
        return Stored(b"".join(line + b"\r\n" for line in own), base64.b64decode(message["data"]))


@contextmanager
def scratch_stream(nats_url: str) -> Iterator[RawNats]:
    """A connection with an empty stream of our own, like those of the log: on disk, with atomic batches."""
    nats = RawNats(nats_url)
    try:
        nats.api(
            f"STREAM.CREATE.{STREAM}",
            {"name": STREAM, "subjects": ["bench.>"], "storage": "file", "num_replicas": 1, "allow_atomic": True},
        )
        try:
            yield nats
        finally:
            nats.api(f"STREAM.DELETE.{STREAM}")
    finally:
        nats.close()


def _publish(stored: Stored, headers: bytes, reply: str = "") -> bytes:
    head = b"NATS/1.0\r\n" + stored.headers + headers + b"\r\n"
    sizes = f"{len(head)} {len(head) + len(stored.data)}"
    to = f"bench.1 {reply} {sizes}" if reply else f"bench.1 {sizes}"
    return f"HPUB {to}\r\n".encode() + head + stored.data + b"\r\n"


def atomic_batches(nats_url: str, stored: Stored, seconds: float) -> float:
    """Messages a second in atomic batches of 200 with the expected last sequence, one batch in flight."""
    with scratch_stream(nats_url) as nats:
        last = written = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            batch = f"Nats-Batch-Id: {secrets.token_hex(8)}\r\nNats-Batch-Sequence: ".encode()
            parts = [_publish(stored, b"Nats-Expected-Last-Sequence: %d\r\n%b1\r\n" % (last, batch))]
            parts += [_publish(stored, b"%b%d\r\n" % (batch, number)) for number in range(2, BATCH)]
            commit = b"%b%d\r\nNats-Batch-Commit: 1\r\n" % (batch, BATCH)
            ack = nats.request(b"".join(parts) + _publish(stored, commit, nats.inbox))
            if "error" in ack:
                raise RuntimeError(f"atomic batch: {ack['error']}")
            last = ack["seq"]
            written += BATCH
    return written / elapsed


def expected_publishes(nats_url: str, stored: Stored, seconds: float) -> Percentiles:
    """One publish after the other, each with the expected last sequence: the latency of each."""
    taken: list[float] = []
    with scratch_stream(nats_url) as nats:
        last = 0
        until = time.perf_counter() + seconds
        while (started := time.perf_counter()) < until:
            ack = nats.request(_publish(stored, b"Nats-Expected-Last-Sequence: %d\r\n" % last, nats.inbox))
            taken.append(time.perf_counter() - started)
            if "error" in ack:
                raise RuntimeError(f"publish: {ack['error']}")
            last = ack["seq"]
    return percentiles(taken)


@contextmanager
def bare_fanout_server(push: bytes) -> Iterator[str]:
    """A process that answers every send by writing one push, like `push`, to all its sockets; its URL."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(push, theirs), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()
        ours.close()
        theirs.close()
