"""Guests: processes that hold many sessions of a gateway each, idle, and bring them back when told to."""

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec
import uvloop

from runtime.bench.socket import LightSocket, close_sockets, keep_alive, open_socket, open_sockets
from runtime.client import ClientError

PER_PROCESS: Final = 5_000  # a process here may have 20,000 files open
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 4.0  # before a client that was refused tries again; spread, as protocol.md asks


class Returned(msgspec.Struct, frozen=True):
    """How sessions came back.

    Attributes:
        taken_s: of each, from when it was dropped until it had everything.
        recovered: sessions that were told so.
        refused: attempts that were.
    """

    taken_s: list[float]
    recovered: int
    refused: int


class Guests:
    """One process. Every method waits until it is done there."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def tell(self, command: str, *arguments: Any) -> None:
        """Have a method of `_Holder` called."""
        self._pipe.send((command, arguments))

    def answer(self) -> Any:
        """What it gave.

        Raises:
            RuntimeError: it failed.
        """
        succeeded, value = self._pipe.recv()
        if not succeeded:
            raise RuntimeError(value)
        return value


@contextmanager
def guests(url: str, tokens: Sequence[str]) -> Iterator[list[Guests]]:
    """A session of the server at `url` for each token, held until the context ends."""
    spawn = multiprocessing.get_context("spawn")
    processes, held = [], []
    try:
        for start in range(0, len(tokens), PER_PROCESS):
            ours, theirs = spawn.Pipe()
            share = list(tokens[start : start + PER_PROCESS])
            processes.append(spawn.Process(target=_main, args=(url, share, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
            held.append(Guests(ours))
        for one in held:
            one.tell("open")
        for one in held:
            one.answer()
        yield held
    finally:
        for process in processes:
            process.terminate()
            process.join()


class _Holder:
    """The sessions of one process."""

    def __init__(self, url: str, tokens: list[str]) -> None:
        self._url = url
        self._tokens = tokens
        self._sockets: list[LightSocket] = []
        self._pinging: asyncio.Task[None] | None = None
        self._refused = self._recovered = 0

    async def open(self) -> None:
        self._sockets = await open_sockets(self._url, self._tokens)
        self._pinging = asyncio.create_task(keep_alive(self._sockets))

    async def close(self) -> None:
        await close_sockets(self._sockets)

    async def drop(self) -> None:
        """Be gone, all at once, without a word."""
        for socket in self._sockets:
            socket.drop()
        await asyncio.gather(*(socket.closed for socket in self._sockets))

    async def come_back(self) -> Returned:
        """All at once, from where each was."""
        began_s = time.monotonic()
        returning = [self._return(number, socket, began_s) for number, socket in enumerate(self._sockets)]
        taken_s = list(await asyncio.gather(*returning))
        return Returned(taken_s, self._recovered, self._refused)

    async def _return(self, number: int, before: LightSocket, began_s: float) -> float:
        connect = {"token": self._tokens[number], "device_id": "bench", "cursor": _connected(before.answer).ok.cursor}
        hello = msgspec.json.encode({"id": 1, "connect": connect})
        wait_s = FIRST_WAIT_S
        while True:
            try:
                socket = await open_socket(self._url, "", hello=hello)
                break
            except ClientError:
                self._refused += 1
                await asyncio.sleep(wait_s * (0.2 + 0.8 * secrets.randbelow(1000) / 1000))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        self._sockets[number] = socket
        self._recovered += _connected(socket.answer).ok.recovered
        current: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(payload: bytes) -> None:
            if payload.startswith(b'{"cursor"') and not current.done():
                current.set_result(None)  # after all that was missed

        socket.listen(take)
        await current
        return time.monotonic() - began_s


class _Hello(msgspec.Struct):
    cursor: str = ""
    recovered: bool = False


class _Answer(msgspec.Struct):
    ok: _Hello


_connected = msgspec.json.Decoder(_Answer).decode


def _main(url: str, tokens: list[str], pipe: Connection) -> None:
    uvloop.run(_serve(_Holder(url, tokens), pipe))


async def _serve(holder: _Holder, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            command, arguments = await loop.run_in_executor(None, pipe.recv)
        except EOFError:
            return
        try:
            answer = (True, await getattr(holder, command)(*arguments))
        except Exception as error:  # noqa: BLE001  # told to the parent, which raises it
            answer = (False, f"{command}: {error!r}")
        pipe.send(answer)
