"""A mover as a process of its own, to be killed. It asks the tests' own process, which has ClickHouse, by a socket."""

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from psycopg_pool import AsyncConnectionPool

from projections.tiers.cold import Cold, ColdRows
from projections.tiers.policy import WarmPolicy
from projections.tiers.scheduler import StoreScheduler


class RemoteRows:
    """`projections.tiers.cold.ColdRows` of another process."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, binary: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(pickle.dumps((sql, dict(parameters or {}), binary)))
        writer.write_eof()
        rows: Sequence[Sequence[Any]] = pickle.loads(await reader.read())
        writer.close()
        return rows


@asynccontextmanager
async def serving(rows: ColdRows) -> AsyncIterator[int]:
    """Answer `RemoteRows` on a port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked := await reader.read():  # nothing, when who asks was killed
            sql, parameters, binary = pickle.loads(asked)
            writer.write(pickle.dumps(await rows.query(sql, parameters, binary=binary)))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def main(postgres_url: str, port: int, now: datetime) -> None:
    async with AsyncConnectionPool(postgres_url, kwargs={"autocommit": True}, open=False) as pool:
        cold = Cold(RemoteRows(port), partitions=1)
        scheduler = StoreScheduler(pool, cold, WarmPolicy.parse("2"), now=lambda: now)
        print("began", flush=True)
        async for _ in scheduler.round():
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), datetime.fromisoformat(sys.argv[3])))
