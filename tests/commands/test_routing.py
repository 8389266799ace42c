"""Commands on their way to the owner of their partition, in one process and across the bus."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import msgspec
import pytest
from structlog.testing import capture_logs

from commands.command import Result
from commands.conversations import ChangeMembers, ConversationResult, CreateConversation
from commands.messages import MessageResult
from commands.repository import Repository
from commands.routing import ROLE, Router
from commands.users import (
    BlockPair,
    ChangeOwnSettings,
    OwnSettingsResult,
    ProfileResult,
    RegisterDevice,
    RevokeDevice,
    UpdateProfile,
)
from commands.writer import PartitionWriter
from commands.writers import Writers
from domain.errors import DomainError, Invalid, NotFound, Revoked, Unavailable
from domain.ids import user_slot
from streams import subjects
from streams.membership import Announcement, Membership
from streams.memory import MemoryBus, MemoryLog, MemoryNodes
from streams.ring import Ring
from streams.shares import Share
from streams.topology import Topology
from tests.commands.harness import LogReceipts, Snapshots, message, wall_ms

PARTITIONS = 4
ALL = len(subjects.FAMILIES) * PARTITIONS


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


class Deployment:
    """Nodes over one memory log and bus."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.log = MemoryLog(self.bus)
        self.nodes = MemoryNodes()
        self.routers: list[Router] = []

    def make_writer(self, family: str, partition: int) -> PartitionWriter:
        return PartitionWriter(
            self.log,
            Repository(self.log, Snapshots(), family=family, partition=partition),
            LogReceipts(self.log),
            family=family,
            partition=partition,
            clock_ms=wall_ms,
            queue_max=10_000,
            cache_bytes=1 << 24,
        )

    @contextlib.asynccontextmanager
    async def node(self, node_id: str) -> AsyncIterator[Writers]:
        writers = Writers(self.bus, self.make_writer)
        membership = Membership(node_id, self.nodes, self.bus, lambda: Announcement((ROLE,), 0))
        membership.on_change(lambda: self.follow(membership))
        share = Share(
            ROLE,
            membership,
            writers.write,
            families=subjects.FAMILIES,
            partitions=PARTITIONS,
            standing=writers.standing,
        )
        tasks = [asyncio.create_task(membership.run()), asyncio.create_task(share.run())]
        try:
            yield writers
        finally:
            await membership.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def router(self, local: Writers | None = None) -> Router:
        router = Router(self.bus, partitions=PARTITIONS, local=local)
        self.routers.append(router)
        return router

    def follow(self, membership: Membership) -> None:
        for router in self.routers:
            router.follow(membership.ring(ROLE))


@pytest.fixture
async def deployment() -> Deployment:
    deployment = Deployment()
    await deployment.log.ensure(Topology(partitions=PARTITIONS))
    return deployment


def owned(node: Writers) -> set[tuple[str, int]]:
    everything = itertools.product(subjects.FAMILIES, range(PARTITIONS))
    return {(family, partition) for family, partition in everything if node.find(family, partition)}


async def create(router: Router, placement: int, actor: str = "alice") -> int:
    result = await router.dispatch(
        CreateConversation(actor_id=actor, kind="group", members=["bob"], placement=placement)
    )
    assert isinstance(result, ConversationResult)
    return int(result.conversation.conversation_id)


async def test_a_lone_node_owns_every_partition(deployment: Deployment) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router(node)
        conversations = [await create(router, placement) for placement in range(8)]
        assert {conversation >> 12 & 1023 for conversation in conversations} == set(range(8))


async def test_a_process_without_writers_reaches_them_over_the_bus(deployment: Deployment) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router()
        conversation = await create(router, 3)
        acks = await asyncio.gather(*(router.dispatch(message(conversation, f"m{i}")) for i in range(50)))
        assert [ack.seq for ack in acks if isinstance(ack, MessageResult)] == list(range(1, 51))


@pytest.mark.parametrize("remote", [True, False])
async def test_a_command_of_a_user_goes_to_their_own_partition(deployment: Deployment, remote: bool) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router(None if remote else node)
        users = [f"user.{i}" for i in range(8)]
        results = [await router.dispatch(UpdateProfile(actor_id=user, display_name=user)) for user in users]
    assert results == [ProfileResult(display_name=user, avatar_url=None, attributes={}) for user in users]
    for user in users:
        partition = user_slot(user) % PARTITIONS
        last = await deployment.log.last(
            subjects.stream(subjects.USER, partition), subjects.aggregate("user", partition, user)
        )
        assert last is not None


@pytest.mark.parametrize("remote", [True, False])
async def test_what_is_not_given_is_told_on_the_way_from_what_is_cleared(deployment: Deployment, remote: bool) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router(None if remote else node)
        await router.dispatch(UpdateProfile(actor_id="ann", display_name="Ann", avatar_url="https://a.example/a.png"))
        result = await router.dispatch(UpdateProfile(actor_id="ann", avatar_url=None))
        muted_until = datetime(2030, 1, 1, tzinfo=UTC)
        muted = await router.dispatch(ChangeOwnSettings(actor_id="ann", conversation_id=5, muted_until=muted_until))
    assert result == ProfileResult(display_name="Ann", avatar_url=None, attributes={})
    assert muted == OwnSettingsResult(muted_until="2030-01-01T00:00:00.000Z", pinned=False, hidden=False)


@pytest.mark.parametrize("remote", [True, False])
async def test_refusals_keep_their_code_and_field_on_the_way(deployment: Deployment, remote: bool) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router(None if remote else node)
        conversation = await create(router, 3)
        with pytest.raises(Invalid) as refusal:
            await router.dispatch(message(conversation, "m1", text=""))
        assert refusal.value.field == "body.text"
        with pytest.raises(NotFound):
            await router.dispatch(message(conversation, "m1", actor="mallory"))
        with pytest.raises(Invalid):
            await router.dispatch(CreateConversation(actor_id="alice", kind="direct", members=["alice"], placement=0))
        with pytest.raises(Invalid):
            await router.dispatch(BlockPair(actor_id="alice", other_id="alice", blocks=True))
        register = RegisterDevice(actor_id="alice", device_id="phone", kind="mobile")
        await router.dispatch(register)
        await router.dispatch(RevokeDevice(actor_id="alice", device_id="phone"))
        with pytest.raises(Revoked):
            await router.dispatch(register)


async def test_partitions_move_when_nodes_come_and_go_and_nothing_is_lost(deployment: Deployment) -> None:
    router = deployment.router()
    acked: dict[str, int] = {}
    stop = asyncio.Event()

    async def send(conversation: int, sender: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            key = f"{sender}-{number}"
            while key not in acked:
                with contextlib.suppress(Unavailable):
                    result = await router.dispatch(message(conversation, key, actor=sender))
                    assert isinstance(result, MessageResult)
                    acked[key] = result.seq

    async with deployment.node("a") as first:
        await eventually(lambda: len(owned(first)) == ALL)
        conversations = [await create(router, placement) for placement in range(PARTITIONS)]
        senders = [asyncio.create_task(send(c, who)) for c in conversations for who in ("alice", "bob")]
        async with deployment.node("b") as second:
            await eventually(lambda: bool(owned(second)) and not owned(first) & owned(second))
            await eventually(lambda: len(acked) > 400)
        await eventually(lambda: len(owned(first)) == ALL)
        count = len(acked)
        await eventually(lambda: len(acked) > count + 200)
        stop.set()
        await asyncio.gather(*senders)
    for partition, conversation in enumerate(conversations):
        stream = subjects.stream(subjects.CONV, partition)
        posted = [d async for d in deployment.log.read(stream) if d.headers[subjects.TYPE] == "message.posted"]
        assert len(posted) >= 50
        assert {delivery.subject for delivery in posted} == {f"conv.{partition}.{conversation}"}
        assert [delivery.headers[subjects.VERSION] for delivery in posted] == [
            str(version) for version in range(2, len(posted) + 2)
        ]


async def test_without_any_writer_a_command_is_refused_as_unavailable(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.routing.MOVING_S", 0.2)
    with pytest.raises(DomainError) as refusal:
        await create(deployment.router(), 0)
    assert refusal.value.code == "unavailable"
    assert refusal.value.retryable


async def test_pipelined_commands_of_a_sender_stay_in_order_while_their_partition_moves(deployment: Deployment) -> None:
    router = deployment.router()
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(deployment.node("a"))
        await eventually(lambda: len(owned(first)) == ALL)
        conversation = await create(router, 3)
        sent: list[asyncio.Future[Result]] = []

        async def send() -> None:
            for number in range(2_000):
                sent.append(router.dispatch(message(conversation, f"m{number}")))
                await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        for name in ("b", "c", "d", "e"):  # one of them takes the partition, and gives it up again
            async with deployment.node(name) as other:
                await eventually(lambda other=other: bool(owned(other)))  # type: ignore[misc]
        await sending
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
    acked = [outcome.seq for outcome in outcomes if isinstance(outcome, MessageResult)]
    assert len(acked) > 1_000
    assert acked == sorted(acked)


async def test_what_can_be_repeated_is_asked_again_when_its_writer_dies(deployment: Deployment) -> None:
    """The writer of `a` takes commands and answers none; then `a` is gone, and `b` has its partitions."""
    router = deployment.router()
    asked: list[bytes] = []

    async def take(request: bytes) -> bytes:
        asked.append(request)
        return bytes(await asyncio.get_running_loop().create_future())

    async with deployment.node("b") as survivor:
        await eventually(lambda: len(owned(survivor)) == ALL)
        partition = next(p for p in range(PARTITIONS) if Ring(["a", "b"]).owner("conv", p) == "a")
        conversation = await create(router, partition)
        await deployment.nodes.announce("a", msgspec.json.encode(Announcement((ROLE,), 0)))
        await eventually(lambda: survivor.find("conv", partition) is None)
        door = await deployment.bus.respond(subjects.command("conv", partition), take)
        posting = router.dispatch(message(conversation, "m1"))
        changing = router.dispatch(ChangeMembers(actor_id="alice", conversation_id=conversation, add=["carol"]))
        await eventually(lambda: len(asked) == 1)
        await door.close()
        await deployment.nodes.withdraw("a")
        posted = await posting
        assert isinstance(posted, MessageResult)
        assert (posted.seq, posted.duplicate) == (1, False)
        with pytest.raises(Unavailable):  # it may have been decided: only who asked can say whether to ask again
            await changing


async def test_too_many_commands_on_their_way_are_refused(deployment: Deployment) -> None:
    router = Router(deployment.bus, partitions=PARTITIONS, waiting_max=2)
    futures = [router.dispatch(UpdateProfile(actor_id=f"u{number}", display_name="x")) for number in range(3)]
    with pytest.raises(Unavailable, match="too many"):
        await futures[2]
    for future in futures:
        future.cancel()


@pytest.mark.parametrize("remote", [True, False])
async def test_a_command_can_be_followed_by_its_id(
    deployment: Deployment, remote: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployment.node("a") as node:
        await eventually(lambda: len(owned(node)) == ALL)
        router = deployment.router(None if remote else node)
        conversation = await create(router, 0)
        post = msgspec.structs.replace(message(conversation, "m1"), correlation_id="c-1")
        with capture_logs() as quiet:
            await router.dispatch(post)
        caplog.set_level(logging.DEBUG)
        with capture_logs() as lines:
            await router.dispatch(post)
            await router.dispatch(msgspec.structs.replace(message(conversation, "m2"), correlation_id="c-2"))
    assert quiet == []
    of_it = [line for line in lines if "c-2" in (line.get("correlation_id"), *line.get("correlation_ids", []))]
    assert [line["event"] for line in of_it] == ["command dispatched", "group decided", "group appended"]
    assert of_it[0]["is_local"] is not remote
    assert of_it[2]["last_sequence"] == await deployment.log.last_sequence("CONV-0")
