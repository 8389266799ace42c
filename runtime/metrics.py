"""What a process counts of its pool of Postgres connections, for Prometheus."""

from prometheus_client import Gauge
from psycopg_pool import AsyncConnectionPool

_CONNECTIONS = Gauge("riverrun_postgres_pool_connections", "Connections to Postgres, in use or idle")
_WAITING = Gauge("riverrun_postgres_pool_waiting", "Requests that wait for a connection to Postgres")


def show_pool(pool: AsyncConnectionPool) -> None:
    """Show a pool, asked for whenever somebody looks. One a process."""
    _CONNECTIONS.set_function(lambda: pool.get_stats().get("pool_size", 0))
    _WAITING.set_function(lambda: pool.get_stats().get("requests_waiting", 0))
