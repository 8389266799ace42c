"""Load processes: each holds a share of the clients, and does what it is told over a pipe, one command at a time."""

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from tests.soak.load import Load, Share

COMMANDS = frozenset({"connect", "begin", "quieten", "settle", "accounts", "leave", "tally"})
END = "end"


class LoadFailed(Exception):
    """A load process has an error of its own; its text."""


class LoadProcess:
    """One process. Started when made; end it."""

    def __init__(self, share: Share) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_main, args=(share, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._one = asyncio.Lock()

    async def tell(self, command: str, *arguments: Any) -> Any:
        """Have a command of `tests.soak.load.Load` done.

        Raises:
            LoadFailed: it failed.
        """
        assert command in COMMANDS
        async with self._one:
            return await asyncio.to_thread(self._exchange, command, arguments)

    def _exchange(self, command: str, arguments: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send((command, arguments))
            succeeded, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise LoadFailed("a load process died") from error
        if not succeeded:
            raise LoadFailed(answer)
        return answer

    async def end(self) -> None:
        """End it."""
        self._process.terminate()
        await asyncio.to_thread(self._process.join)
        self._pipe.close()


def _main(share: Share, pipe: Connection) -> None:
    uvloop.run(_serve(share, pipe))


async def _serve(share: Share, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    load = Load(share)
    while True:
        try:
            command, arguments = await loop.run_in_executor(None, pipe.recv)
        except EOFError:
            return  # the soak is gone
        try:
            answer = (True, await getattr(load, command)(*arguments))
        except Exception as error:  # noqa: BLE001  # told to the soak, which raises it
            answer = (False, f"{command}: {error!r}")
        pipe.send(answer)
