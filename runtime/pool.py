"""The pool of connections to Postgres: psycopg's, that loses none to cancellation.

Whoever is cancelled while psycopg's pool takes a connection back leaves it in nobody's hands, and the pool is one
smaller for good (psycopg-pool 3.3). Sessions that end, and statements that take too long, are cancelled while they
ask: in a storm of them a gateway has no connection left within a minute.
"""

import asyncio
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool


class Pool(AsyncConnectionPool[AsyncConnection[Any]]):
    """See `psycopg_pool.AsyncConnectionPool`."""

    async def putconn(self, conn: AsyncConnection[Any]) -> None:
        """Take a connection back, also when who brings it is cancelled meanwhile."""
        await asyncio.shield(asyncio.ensure_future(super().putconn(conn)))
