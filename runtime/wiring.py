"""The composition root: makes every object of a process, starts its roles, and takes them down in order.

Roles: `api` (HTTP, WebSocket, SSE), `writer`, `projector`, `fanout`, `archiver`. `riverrun up` runs all of them in one
process.
Every process is a member of the deployment; the partitions are shared out, for each role, among those who have it.
Only this module and those it stands on (`connections`, `roles`, `doors`) know which implementation is behind a port.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from commands.routing import Router
from commands.writers import Writers
from projections.archive.clickhouse import ClickHouse
from runtime.collector import spare_the_collector
from runtime.connections import VALKEY_S, Connections, connected
from runtime.doors import open_doors, open_monitoring
from runtime.roles import Archiving, Fanout, Projector, store_scheduler, writers
from runtime.services import Services
from runtime.settings import Settings
from streams import subjects
from streams.membership import Announcement, Membership
from streams.shares import Duty, Share, Standing

ROLES = frozenset({"api", "writer", "projector", "fanout", "archiver"})


async def run(
    settings: Settings,
    roles: frozenset[str],
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve the roles until `stop` is set, then drain and return.

    Args:
        ready: called once, with the URL of the API, or "" when the process serves none.

    Raises:
        DomainError: the log was made for another topology, or its server does not sync.
        LogUnavailable, OSError: a server does not answer. Nothing was started.
    """
    async with AsyncExitStack() as stack:
        clickhouse = ClickHouse(settings.clickhouse_url)  # opened by who first reads or archives
        stack.push_async_callback(clickhouse.close)
        connections = await stack.enter_async_context(connected(settings, clickhouse))
        services = Services()
        stack.push_async_callback(services.stop)
        node = Node(connections, services, roles)
        node.monitoring_url = open_monitoring(settings, services)
        if "projector" in roles:
            projector = Projector(connections)
            node.share("projector", projector.project, projector.standing)
        if "fanout" in roles:
            fanout = Fanout(connections)
            node.share("fanout", fanout.fan_out, fanout.standing)
            services.start("signals", fanout.signals.run())
        if "archiver" in roles:
            archiving = Archiving(connections, clickhouse)
            node.share("archiver", archiving.archive, archiving.standing)
            services.start("store scheduler", store_scheduler(connections, clickhouse).run(settings.tiers_s))
        local: Writers | None = None
        if "writer" in roles:
            local = writers(connections)
            node.share("writer", local.write, local.standing)
        await node.join()
        stack.push_async_callback(node.membership.leave)  # before its work ends: others take it over meanwhile
        if "api" in roles:
            node.url = await stack.enter_async_context(
                open_doors(
                    connections,
                    services,
                    dispatcher=node.router(local),
                    # The others go on without the archive.
                    readiness=_readiness(connections, node, clickhouse if "archiver" in roles else None),
                )
            )
            node.membership.announce_soon()
        ready(node.url)
        spare_the_collector()
        await services.watch(stop)


class Node:
    """This process as a member of the deployment, with its shares of the partitions."""

    def __init__(self, connections: Connections, services: Services, roles: frozenset[str]) -> None:
        self.url = ""
        self.monitoring_url = ""
        self.shares: list[Share] = []
        self._connections = connections
        self._services = services
        self._roles = tuple(sorted(roles))
        self._started_at_ms = time.time_ns() // 1_000_000
        jetstream, node_id = connections.jetstream, connections.settings.node_id
        self.membership = Membership(node_id, jetstream.nodes, jetstream.bus, self._describe)

    def share(self, role: str, duty: Duty, standing: Standing) -> None:
        """Have the partitions that are this node's for a role worked on, from `join` on."""
        self.shares.append(
            Share(
                role,
                self.membership,
                duty,
                families=subjects.FAMILIES,
                partitions=self._connections.settings.partitions,
                standing=standing,
            )
        )

    async def join(self) -> None:
        """Become a member, and return when all that is this node's is worked on."""
        self._services.start("membership", self.membership.run())
        for share in self.shares:
            self._services.start(f"share of {share.role}", share.run())
        for share in self.shares:
            await self._services.until(share.settled())

    def router(self, local: Writers | None) -> Router:
        """The way to the writers, here and elsewhere."""
        router = Router(self._connections.jetstream.bus, partitions=self._connections.settings.partitions, local=local)
        self.membership.on_change(lambda: router.follow(self.membership.ring("writer")))
        router.follow(self.membership.ring("writer"))
        return router

    def _describe(self) -> Announcement:
        return Announcement(
            roles=self._roles,
            started_at_ms=self._started_at_ms,
            host=socket.gethostname(),
            pid=os.getpid(),
            url=self.url,
            monitoring_url=self.monitoring_url,
            held={share.role: share.held for share in self.shares},
        )


def _readiness(
    connections: Connections, node: Node, clickhouse: ClickHouse | None
) -> dict[str, Callable[[], Awaitable[None]]]:
    """What must answer before traffic is welcome, by name. Each raises when it does not."""

    async def log_answers() -> None:
        await connections.jetstream.log.last_sequence(subjects.stream(subjects.CONV, 0))

    async def postgres_answers() -> None:
        async with connections.pool.connection(timeout=VALKEY_S) as connection:
            await connection.execute("SELECT 1")

    async def valkey_answers() -> None:
        await connections.valkey.ping()

    checks: dict[str, Callable[[], Awaitable[None]]] = {
        "log": log_answers,
        "postgres": postgres_answers,
        "valkey": valkey_answers,
        **{share.role: share.ready for share in node.shares},
    }
    if clickhouse is not None:
        checks["clickhouse"] = clickhouse.ready
    return checks
