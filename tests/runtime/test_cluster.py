"""`riverrun up --cluster` from outside: it serves, its processes replace each other, and it ends as it should."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from domain.errors import BY_CODE
from runtime.client.errors import ApiError, ConnectionLost
from runtime.client.http import HttpClient
from runtime.embedded.lock import is_alive
from streams.jetstream import JetStream
from streams.membership import announcements
from tests.running import Running
from tests.runtime.test_up import assert_refused, up

WAIT_S = 60.0
ROLES = ("writer", "projector", "fanout", "gateway", "archiver")
CONVERSATIONS = 8
PACE_S = 0.05
PLACES = {f"{family}-{partition}" for family in ("CONV", "USER") for partition in range(4)}


async def riverrun(data_dir: Path, *arguments: str) -> tuple[int | None, Any]:
    """A command that prints JSON: exit status, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", *arguments, "--json", "--data-dir", str(data_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT_S):
        out, _ = await process.communicate()
    return process.returncode, json.loads(out)


def works_on(found: dict[str, Any], role: str) -> list[str]:
    return sorted(held["stream"] for node in found.values() for held in node.get("held", {}).get(role, []))


async def settled(nats_url: str) -> None:
    """Return once all nodes are there and each role's partitions are shared out, each to one."""
    jetstream = await JetStream.connect(nats_url, name="test")
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = dict(msgspec.to_builtins(announcements(await jetstream.nodes.alive())))
                roles = ("writer", "projector", "fanout", "archiver")
                if len(found) == 10 and all(works_on(found, role) == sorted(PLACES) for role in roles):
                    return
                await asyncio.sleep(0.05)
    finally:
        await jetstream.close()


async def post(client: HttpClient, conversation_id: str, number: int) -> int:
    """Post until it is acked: the same message however often."""
    while True:
        try:
            ack = await client.request(
                "POST",
                f"/v1/conversations/{conversation_id}/messages",
                json={"client_msg_id": f"m{number}", "body": {"type": "text", "text": str(number)}},
            )
            return int(ack["seq"])
        except ConnectionLost:
            await asyncio.sleep(0.05)
        except ApiError as error:
            if not BY_CODE[error.code].retryable:
                raise
            await asyncio.sleep(0.05)


async def test_its_processes_replace_each_other_and_nothing_acked_is_lost(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    cluster = Running(data_dir, "--cluster")
    await cluster.start()
    try:
        pids = cluster.run_json()["pids"]
        names = {f"{role}-{number}" for role in ROLES for number in (0, 1)}
        assert set(pids) - {"front"} == names | {"nats-0", "nats-1", "nats-2", "postgres", "valkey", "clickhouse"}
        nats_url = cluster.run_json()["nats_url"]
        await settled(nats_url)
        status, found = await riverrun(data_dir, "nodes")
        assert status == 0
        assert works_on(found["nodes"], "writer") == sorted(PLACES)
        assert set(found["ends"]) == PLACES
        urls = [node["url"] for _, node in sorted(found["nodes"].items()) if node.get("url")]
        assert len(urls) == 2
        shown = {name: node["monitoring_url"] for name, node in found["nodes"].items() if node.get("monitoring_url")}
        assert sorted(shown) == sorted(name for name in names if not name.startswith("gateway"))
        gateways = dict(zip(("gateway-0", "gateway-1"), urls, strict=True))
        assert cluster.run_json()["monitoring_urls"] == {**shown, **gateways}

        stop, acked = asyncio.Event(), list[list[int]]()
        async with (
            HttpClient(urls[0], cluster.token("alice")) as one,
            HttpClient(urls[1], cluster.token("alice")) as two,
        ):
            opened = [
                await one.request("POST", "/v1/conversations", json={"kind": "group", "members": ["bob"]})
                for _ in range(CONVERSATIONS)
            ]

            async def keep_posting(conversation_id: str) -> None:
                seqs: list[int] = []
                acked.append(seqs)
                while not stop.is_set():
                    seqs.append(await post((one, two)[len(seqs) % 2], conversation_id, len(seqs)))
                    await asyncio.sleep(PACE_S)

            posting = [asyncio.create_task(keep_posting(each["conversation_id"])) for each in opened]
            for name, end in (
                ("writer-0", signal.SIGKILL),
                ("projector-0", signal.SIGKILL),
                ("fanout-0", signal.SIGKILL),
                ("writer-1", signal.SIGTERM),
            ):
                os.kill(pids[name], end)
                async with asyncio.timeout(WAIT_S):  # it is replaced, and comes back
                    while cluster.run_json()["pids"].get(name, pids[name]) == pids[name]:
                        await asyncio.sleep(0.05)
                await settled(nats_url)
            counts = [len(seqs) for seqs in acked]
            async with asyncio.timeout(WAIT_S):
                while not all(len(seqs) > count for seqs, count in zip(acked, counts, strict=True)):
                    await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*posting)

        for seqs in acked:
            assert seqs == list(range(1, len(seqs) + 1))
        status, report = await riverrun(data_dir, "verify")
        assert (status, report["equal"]) == (0, True)

        record = cluster.run_json()
        assert await cluster.stop() == 0
        assert not any(is_alive(pid) for pid in record["pids"].values())
        assert_refused(await up(data_dir, "--port", "0"), "it was begun with a cluster")
    finally:
        if cluster.alive:
            await cluster.kill()
