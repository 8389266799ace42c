"""Several processes that begin to measure at the same moment."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import uvloop

from runtime.bench.errors import BenchError
from runtime.bench.mark import now_us

Plan = TypeVar("Plan")
Outcome = TypeVar("Outcome")
Ready = Callable[[], Awaitable[int]]  # answers when all begin, by `now_us()`
HEADSTART_US = 50_000  # from when all are ready until they begin: for the word to reach each of them


class WorkerFailed(BenchError):
    """A process ended with an error; its text."""


def run(work: Callable[[Plan, Ready], Awaitable[Outcome]], plans: Sequence[Plan]) -> list[Outcome]:
    """Do each plan in a process of its own, on uvloop; a single one in this process.

    Args:
        work: awaits its second argument when it has prepared itself, and goes on when all have.

    Raises:
        WorkerFailed: one of several failed. Whatever a single one raises.
    """
    if len(plans) == 1:
        return [uvloop.run(_alone(work, plans[0]))]
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    workers = []
    try:
        for plan in plans:
            ours, theirs = spawn.Pipe()
            worker = spawn.Process(target=_main, args=(work, plan, theirs), daemon=True)
            worker.start()
            theirs.close()
            pipes.append(ours)
            workers.append(worker)
        for pipe in pipes:
            _receive(pipe)
        start_us = now_us() + HEADSTART_US
        for pipe in pipes:
            pipe.send(start_us)
        return [_receive(pipe) for pipe in pipes]
    finally:
        for pipe in pipes:
            pipe.close()
        for worker in workers:
            worker.terminate()
            worker.join()


async def _alone(work: Callable[[Plan, Ready], Awaitable[Outcome]], plan: Plan) -> Outcome:
    return await work(plan, _at_once)


async def _at_once() -> int:
    return now_us()


def _receive(pipe: Connection) -> Any:
    try:
        succeeded, value = pipe.recv()
    except EOFError:
        raise WorkerFailed("a process died") from None
    if not succeeded:
        raise WorkerFailed(value)
    return value


def _main(work: Callable[[Any, Ready], Awaitable[Any]], plan: Any, pipe: Connection) -> None:
    async def ready() -> int:
        pipe.send((True, None))
        return int(await asyncio.get_running_loop().run_in_executor(None, pipe.recv))

    async def main() -> Any:
        return await work(plan, ready)

    try:
        pipe.send((True, uvloop.run(main())))
    except Exception as error:  # noqa: BLE001  # told to the parent, which raises it
        pipe.send((False, str(error) or type(error).__name__))
