"""`riverrun serve`: every role a process of its own, on servers that run elsewhere; a writer killed and replaced."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from runtime.client import ApiError, HttpClient, Retry, WebSocketClient
from runtime.embedded.child import free_port
from runtime.embedded.nats import NatsServer
from runtime.embedded.servers import EmbeddedServers
from runtime.tokens import load_or_create_secret, mint
from streams.jetstream import JetStream
from streams.membership import announcements
from tests.conftest import NatsServerFactory, fresh_database

START_S = 30.0


class Deployment:
    """Servers, and roles on them."""

    def __init__(self, folder: Path, nats: NatsServer, servers: EmbeddedServers, postgres_url: str) -> None:
        self._folder = folder
        self._secret = load_or_create_secret(folder / "jwt.secret")
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RIVERRUN_")}
        self.nats_url = nats.url
        self._environment = {
            **outside,
            "RIVERRUN_NATS_URL": nats.url,
            "RIVERRUN_NATS_MONITORING_URL": nats.monitoring_url,
            "RIVERRUN_POSTGRES_URL": postgres_url,
            "RIVERRUN_VALKEY_URL": servers.valkey_url,
            "RIVERRUN_JWT_SECRET_FILE": str(folder / "jwt.secret"),
            "RIVERRUN_PARTITIONS": "2",
        }

    def token(self, user_id: str) -> str:
        return mint(user_id, ttl_s=3600, admin=False, secret=self._secret)

    @asynccontextmanager
    async def role(self, name: str, **settings: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        """A process that serves a role, ready; and its URL, when it has one.

        Args:
            settings: more of its environment.
        """
        with (self._folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime.cli", "serve", "--roles", name, "--port", "0"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**self._environment, **settings},
            )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = (await process.stdout.readline()).decode()
            assert line.startswith(f"Riverrun serves {name}"), (self._folder / f"{name}.log").read_text()
            url = re.search(r"http://\S+", line)
            yield process, url[0] if url else ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


@pytest.fixture
async def deployment(
    tmp_path: Path, nats_server: NatsServerFactory, servers: EmbeddedServers
) -> AsyncIterator[Deployment]:
    async with fresh_database(servers) as postgres_url:
        yield Deployment(tmp_path, await nats_server(), servers, postgres_url)


async def test_roles_in_processes_of_their_own_are_one_riverrun(deployment: Deployment) -> None:
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(deployment.role("api", RIVERRUN_MAX_SESSIONS="1"))
        for name in ("projector", "fanout", "writer"):
            await stack.enter_async_context(deployment.role(name))
        alice = await stack.enter_async_context(HttpClient(url, deployment.token("alice")))
        bob = await stack.enter_async_context(WebSocketClient(url, deployment.token("bob")))
        conversation = (await Retry(for_s=20)(lambda: alice.create_conversation("group", ["bob"])))["conversation_id"]
        for number in range(20):
            await alice.post(conversation, f"message {number}")

        pushed: list[int] = []
        async with asyncio.timeout(20):
            async for push in bob.pushes():
                if push.get("event", {}).get("type") == "message.posted":
                    pushed.append(push["event"]["data"]["seq"])
                    if len(pushed) == 20:
                        break
        assert pushed == list(range(1, 21))
        texts = [message["body"]["text"] async for message in alice.messages(conversation)]
        assert texts == [f"message {number}" for number in range(20)]

        with pytest.raises(ApiError, match="unavailable: this server has 1 sessions, as many as it may"):
            await WebSocketClient(url, deployment.token("carol")).connect()


async def test_a_killed_writer_is_replaced_and_nothing_acked_is_lost_or_doubled(deployment: Deployment) -> None:
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(deployment.role("api"))
        await stack.enter_async_context(deployment.role("projector"))
        alice = await stack.enter_async_context(HttpClient(url, deployment.token("alice")))
        first, _ = await stack.enter_async_context(deployment.role("writer"))
        retry = Retry(for_s=30)
        conversation = (await retry(lambda: alice.create_conversation("group", ["bob"])))["conversation_id"]
        acked: list[int] = []

        async def send(start: int, stop: int) -> None:
            for number in range(start, stop):
                ack = await retry(partial(alice.post, conversation, f"m{number}", client_msg_id=f"m{number}"))
                acked.append(ack["seq"])

        await send(0, 30)
        sending = asyncio.create_task(send(30, 90))
        while len(acked) < 40:
            await asyncio.sleep(0.005)
        first.kill()
        await stack.enter_async_context(deployment.role("writer"))
        await sending
        assert acked == list(range(1, 91))
        texts = [message["body"]["text"] async for message in alice.messages(conversation)]
        assert texts == [f"m{number}" for number in range(90)]


async def test_a_process_without_api_shows_its_figures_where_it_says(deployment: Deployment) -> None:
    port = free_port()
    async with (
        deployment.role("writer", RIVERRUN_MONITORING_PORT=str(port)) as (process, url),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert url == ""
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        figures = (await client.get("/metrics")).text
        assert 'riverrun_partitions_held{role="writer"} 4.0' in figures
        assert 'riverrun_writer_waiting_commands{stream="USER-1"} 0.0' in figures
        assert (await client.get("/v1/inbox")).status_code == 404
        jetstream = await JetStream.connect(deployment.nats_url, name="test")
        try:
            (node,) = announcements(await jetstream.nodes.alive()).values()
        finally:
            await jetstream.close()
        assert node.monitoring_url == f"http://127.0.0.1:{port}"
        process.terminate()
        assert await process.wait() == 0
