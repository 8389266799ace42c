"""What operations promise beyond passing on: the order of sends, and reading one's own writes.

The dispatcher and the queries here are stand-ins that record what they are asked; the real ones have tests of
their own, and `test_http_*` tries all of it together.
"""

import asyncio
from typing import Any, cast

import pytest

from api import operations
from api.auth import Principal
from api.context import ApiContext
from api.recent_writes import RecentWrites
from api.schema import ConversationQuery, PostMessageRequest, TextBody
from commands.command import Command, Result
from commands.messages import MessageResult, PostMessage
from domain.errors import Conflict, Invalid, NotFound, Unavailable

ALICE = Principal("alice", False, 4e9)
CONVERSATION = 7_000_000_000_000_000_001


class Dispatcher:
    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.futures: list[asyncio.Future[Result]] = []

    def dispatch(self, command: Command) -> "asyncio.Future[Result]":
        self.commands.append(command)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


class Queries:
    """Has a conversation up to a version."""

    def __init__(self, version: int, refusal: type[Exception] = Unavailable) -> None:
        self.version = version
        self.refusal = refusal
        self.asked: list[int] = []

    async def conversation(self, _conversation_id: int, _user_id: str, *, min_version: int) -> str:
        self.asked.append(min_version)
        if min_version > self.version:
            raise self.refusal("not yet")
        return "the view"


def context_of(**parts: Any) -> ApiContext:
    missing: dict[str, Any] = dict.fromkeys(
        (
            "dispatcher",
            "queries",
            "users",
            "sync",
            "hot",
            "authenticator",
            "tickets",
            "gateway",
            "past",
            "readiness",
            "versions",
            "random_slot",
        )
    )
    return ApiContext(**{**missing, **parts})


def post(context: ApiContext, client_msg_id: str, **fields: Any) -> "asyncio.Future[MessageResult]":
    request = PostMessageRequest(client_msg_id=client_msg_id, body=TextBody("text", "hello"), **fields)
    return operations.post_message(context, ALICE, str(CONVERSATION), request)


async def read(context: ApiContext, min_version: int = 0) -> Any:
    return await operations.conversation(context, ALICE, str(CONVERSATION), ConversationQuery(min_version))


def ack(version: int) -> MessageResult:
    return MessageResult(
        message_id="1",
        conversation_id=str(CONVERSATION),
        seq=1,
        version=version,
        created_at="2026-11-23T20:56:00.123Z",
        duplicate=False,
    )


async def test_commands_are_on_their_way_in_the_order_of_the_calls() -> None:
    dispatcher = Dispatcher()
    context = context_of(dispatcher=dispatcher)
    for number in range(3):
        post(context, f"c{number}")
    sent = [cast("PostMessage", command).client_msg_id for command in dispatcher.commands]
    assert sent == ["c0", "c1", "c2"]  # and nothing was awaited yet


async def test_a_malformed_id_is_told_through_the_future() -> None:
    dispatcher = Dispatcher()
    future = post(context_of(dispatcher=dispatcher), "c", reply_to="abc")
    with pytest.raises(Invalid):
        await future
    assert not dispatcher.commands


async def test_who_is_acked_reads_what_was_written() -> None:
    dispatcher, queries = Dispatcher(), Queries(version=9)
    context = context_of(dispatcher=dispatcher, queries=queries)
    posting = post(context, "c")

    async def read_when_acked() -> Any:
        await posting
        return await read(context)

    reading = asyncio.create_task(read_when_acked())
    await asyncio.sleep(0)  # the reader waits for the ack before it comes
    dispatcher.futures[0].set_result(ack(version=9))
    assert await reading == "the view"
    assert await read(context) == "the view"
    assert queries.asked == [9, 9]  # another tier may not have it yet


async def test_a_refused_send_is_nothing_to_wait_for() -> None:
    dispatcher, queries = Dispatcher(), Queries(version=1)
    context = context_of(dispatcher=dispatcher, queries=queries)
    posting = post(context, "c")
    dispatcher.futures[0].set_exception(Conflict("used"))
    with pytest.raises(Conflict):
        await posting
    await read(context)
    assert queries.asked == [0]


async def test_ones_own_writes_are_waited_for_but_not_insisted_on() -> None:
    recent, queries = RecentWrites(), Queries(version=3)
    recent.note(CONVERSATION, 5, ["alice"])
    context = context_of(queries=queries, recent_writes=recent)
    assert await read(context) == "the view"
    assert queries.asked == [5, 0]
    assert recent.version_of(CONVERSATION, "alice") == 5  # the next read may have more luck
    with pytest.raises(Unavailable):  # what the client itself asks for is
        await read(context, min_version=6)


async def test_who_has_left_does_not_wait_for_ever() -> None:
    recent, queries = RecentWrites(), Queries(version=3, refusal=NotFound)
    recent.note(CONVERSATION, 5, ["alice"])
    context = context_of(queries=queries, recent_writes=recent)
    with pytest.raises(NotFound):
        await read(context)
    assert recent.version_of(CONVERSATION, "alice") == 0
