"""The way from the library's threads to NATS: a thread with an event loop, and one connection on it.

All threads of an application share it. What the log says is told in the library's words:

LogUnavailable   OperationalError   nothing was stored
AppendUnknown    OperationalError   as its text says, stored perhaps
RecordTooLarge   DataError          nothing was stored; the same again fails again
"""

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from eventsourcing.persistence import DataError, InterfaceError, OperationalError

from streams.jetstream.connection import Connection
from streams.ports import LogError, RecordTooLarge

CONNECT_S = 5.0

T = TypeVar("T")


class JetStreamDatastore:
    """One connection to NATS for synchronous callers. It comes back by itself.

    Args:
        url: `nats://[user:password@]host:port`, or several, separated by commas.
        name: what the server's monitoring shows.
        credentials: nats-py's own options (`user_credentials`, `tls`, …), where the URL has none.

    Raises:
        OperationalError: no server let us in within 5 s.
    """

    def __init__(self, url: str, *, name: str, **credentials: Any) -> None:
        opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Connection]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(_live(url, name, credentials, opened)), name=f"{name}-nats", daemon=True
        )
        self._thread.start()
        try:
            self._loop, self._ended, self.connection = opened.result()
        except LogError as error:
            self._thread.join()
            raise OperationalError(str(error)) from error
        # Also when nobody closes it: dropped, or at the end of the process.
        self._end = weakref.finalize(self, _end, self._loop, self._ended)

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Have something done on the connection's loop.

        Raises:
            InterfaceError: the datastore is closed.
        """
        if self._end.alive:
            try:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
            except RuntimeError:  # closed in this very moment
                pass
        work.close()
        raise InterfaceError("the connection to NATS is closed")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done on the connection's loop, and wait for it.

        Raises:
            OperationalError, DataError: as the module says. InterfaceError: the datastore is, or was meanwhile, closed.
        """
        return self.result(self.submit(work))

    def result(self, future: "Future[T]") -> T:
        """Wait for what was submitted. Raises as `run`; InterfaceError also when it was cancelled."""
        try:
            return future.result()
        except CancelledError as error:
            raise InterfaceError("cancelled, or the connection to NATS was closed") from error
        except RecordTooLarge as error:
            raise DataError(str(error)) from error
        except LogError as error:
            raise OperationalError(str(error)) from error
        finally:
            future.cancel()  # of a caller that was interrupted; otherwise it is done

    def close(self) -> None:
        """End what is under way, and the connection. Idempotent."""
        self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join()


async def _live(
    url: str,
    name: str,
    credentials: dict[str, Any],
    opened: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Connection]]",
) -> None:
    ended = asyncio.Event()
    try:
        connection = await Connection.open(url, name=name, timeout_s=CONNECT_S, **credentials)
    except BaseException as error:  # noqa: BLE001  # whoever waits for `opened` raises it
        opened.set_exception(error)
        return
    opened.set_result((asyncio.get_running_loop(), ended, connection))
    try:
        await ended.wait()
    finally:
        await connection.close()


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    loop.call_soon_threadsafe(ended.set)
