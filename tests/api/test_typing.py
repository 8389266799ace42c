"""Typing: where the signal goes, who may send it, and how much of it."""

import json
from typing import Any

import pytest

from api.errors import RateLimited
from api.typing import Typing
from domain.errors import NotFound
from streams import subjects
from streams.memory import MemoryBus
from streams.ports import Signal
from tests.api.presences import Clock, eventually


class TypingSession:
    """A session that is attached to conversations."""

    def __init__(self, user_id: str, *conversations: int) -> None:
        self.user_id = user_id
        self.conversations: dict[int, Any] = dict.fromkeys(conversations)


async def heard_on(bus: MemoryBus, conversation_id: int) -> list[Signal]:
    heard: list[Signal] = []
    await bus.subscribe(subjects.signal_conversation(str(conversation_id)), heard.append)
    return heard


async def test_typing_goes_to_the_fan_out_with_its_sender(clock: Clock) -> None:
    bus = MemoryBus()
    heard = await heard_on(bus, 7)
    typing, session = Typing(bus, clock=clock), TypingSession("bob", 7)
    await typing.typing(session, 7, active=True)
    clock.now_s += 1
    await typing.typing(session, 7, active=False)
    await eventually(lambda: len(heard) == 2)
    assert [signal.headers for signal in heard] == [{subjects.SIGNAL: "typing", subjects.SENDER: "bob"}] * 2
    sent = [json.loads(signal.data)["signal"] for signal in heard]
    assert sent[0] == {
        "type": "typing",
        "conversation_id": "7",
        "user_id": "bob",
        "active": True,
        "expires_in_s": 6,
    }
    assert sent[1] == {**sent[0], "active": False}


async def test_who_is_not_in_the_conversation_is_not_heard(clock: Clock) -> None:
    bus = MemoryBus()
    heard = await heard_on(bus, 8)
    typing, session = Typing(bus, clock=clock), TypingSession("bob", 7)
    with pytest.raises(NotFound):
        await typing.typing(session, 8, active=True)
    session.conversations[8] = None
    await typing.typing(session, 8, active=True)
    await eventually(lambda: len(heard) == 1)


async def test_a_flood_in_one_conversation_is_refused(clock: Clock) -> None:
    bus = MemoryBus()
    heard = await heard_on(bus, 7)
    typing, session, other = Typing(bus, clock=clock), TypingSession("bob", 7), TypingSession("bob", 7)
    await typing.typing(session, 7, active=True)
    for _ in range(1_000):
        with pytest.raises(RateLimited) as refused:
            await typing.typing(session, 7, active=False)
        assert refused.value.fields == {"retry_after": 1}
    await typing.typing(other, 7, active=True)  # the limit is a session's
    clock.now_s += 1
    await typing.typing(session, 7, active=True)
    await eventually(lambda: len(heard) == 3)


async def test_a_flood_over_conversations_is_refused(clock: Clock) -> None:
    typing, session = Typing(MemoryBus(), clock=clock), TypingSession("bob", *range(1, 30))
    for conversation_id in range(1, 11):
        await typing.typing(session, conversation_id, active=True)
        clock.now_s += 1 / 16
    for conversation_id in range(11, 30):
        with pytest.raises(RateLimited):
            await typing.typing(session, conversation_id, active=True)
    clock.now_s += 6 / 16  # a second after the first
    await typing.typing(session, 11, active=True)
    with pytest.raises(RateLimited):
        await typing.typing(session, 12, active=True)


async def test_a_session_that_has_ended_is_forgotten(clock: Clock) -> None:
    typing, session = Typing(MemoryBus(), clock=clock), TypingSession("bob", 7)
    typing.disconnected(session)
    await typing.typing(session, 7, active=True)
    typing.disconnected(session)
    assert typing._lately == {}
    await typing.typing(session, 7, active=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()
