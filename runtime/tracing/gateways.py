"""Asking all gateways what became of an event: one question on the bus, and as many answers as there are gateways."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from api.testimony import PushQuestion, Testimony
from runtime.tracing.facts import Gateways
from runtime.tracing.locate import Found
from streams import subjects
from streams.ports import Bus, Signal

DEADLINE_S: Final = 1.0  # a gateway answers in milliseconds; after this it counts as missing

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Testimony).decode


async def ask_gateways(bus: Bus, found: Found, users: Sequence[str], *, expected: int | None) -> Gateways:
    """What the gateways know of an event and of the sessions of some users.

    Args:
        expected: how many gateways there are: waiting ends when so many have answered, or after `DEADLINE_S`.

    Raises:
        BusError: nothing can be asked.
    """
    answers: list[Testimony] = []
    everybody = asyncio.Event()

    def hear(signal: Signal) -> None:
        answers.append(_decode(signal.data))
        if expected is not None and len(answers) >= expected:
            everybody.set()

    reply = subjects.trace_answer(secrets.token_hex(8))
    question = PushQuestion(
        reply, found.conversation_id, found.event.originator_version, found.delivery.sequence, list(users)
    )
    subscription = await bus.subscribe(reply, hear)
    try:
        await bus.publish(subjects.TRACE_PUSH, _encode(question))
        async with asyncio.timeout(DEADLINE_S):
            await everybody.wait()
    except TimeoutError:
        pass
    finally:
        await subscription.close()
    answers.sort(key=lambda answer: answer.gateway)
    return Gateways(answers, None if expected is None else max(0, expected - len(answers)))
