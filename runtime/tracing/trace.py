"""The trace of a message: every source asked, in one go, read only. What does not answer is said to be unknown."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import msgspec
import psycopg

from domain.events import MemberRemoved
from domain.fanout import reads, writes
from projections.audience import MEMBERSHIP
from projections.fanout import READER
from runtime.tracing import read_models
from runtime.tracing.facts import FanoutFact, Gateways, MemberFact, MessageFact, ReadModels, Stay, Trace
from runtime.tracing.gateways import ask_gateways
from runtime.tracing.locate import Found, locate
from runtime.tracing.valkey import Valkey
from runtime.tracing.verdict import verdict
from streams import subjects
from streams.codec import decode, event_version
from streams.ports import Bus, Log

SHOWN_MAX: Final = 50  # members; of a larger conversation one asks for the one that matters


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked, and how the deployment is set up."""

    log: Log
    bus: Bus
    postgres_url: str
    valkey_url: str
    partitions: int
    fanout_limit: int


async def trace(sources: Sources, name: str, *, user_id: str | None = None, body: bool = False) -> Trace:
    """What became of the message that is named.

    Args:
        name: `MESSAGE_ID` or `CONVERSATION_ID:SEQ`.
        user_id: the only one to look for; else the members, up to `SHOWN_MAX`.
        body: whether the text may be shown.

    Raises:
        NotFound: the name is malformed, or there is no such message. LogError, BusError: NATS does not answer.
    """
    async with AsyncExitStack() as stack:
        connection, down = None, ""
        try:
            connection = await read_models.connect(sources.postgres_url)
            stack.push_async_callback(connection.close)
        except psycopg.Error as error:
            down = " ".join(str(error).split())

        async def sequence_of(conversation_id: int, seq: int) -> int | None:
            return None if connection is None else await read_models.sequence_of(connection, conversation_id, seq)

        log = sources.log
        found = await locate(log, name, partitions=sources.partitions, sequence_of=sequence_of)
        end, place = await log.last_sequence(found.delivery.stream), await log.place(found.delivery.stream, READER)
        asked = [] if user_id is None else [user_id]
        if connection is None:
            models, users = ReadModels(f"Postgres does not answer: {down}"), asked
            members = [MemberFact(user, Stay(None)) for user in users]
        else:
            models = await read_models.read_models(connection, log, found, end)
            users = asked or await read_models.concerned(connection, found, SHOWN_MAX)
            members = await read_models.members(connection, found, users, direct=models.kind == "direct")
        members = [await _exact(log, found, member) for member in members]
        valkey = await stack.enter_async_context(Valkey(sources.valkey_url))
        hot, seen = await valkey.hot(found), await valkey.last_seen(users)
        gateways = await ask_gateways(sources.bus, found, users, expected=await valkey.gateways())
    told = Trace(
        message=_message(found, body=body),
        models=models,
        hot=hot,
        fanout=FanoutFact(_way(models, sources.fanout_limit), place, end - (place or 0)),
        gateways=gateways,
        members=[_with_sessions(member, gateways, seen.get(member.user_id)) for member in members],
        members_total=max(models.members, len(members)) if user_id is None else 1,
    )
    return replace(told, members=[replace(member, verdict=verdict(told, member)) for member in told.members])


async def _exact(log: Log, found: Found, member: MemberFact) -> MemberFact:
    """A member whose stay the read models have forgotten: it is folded from the log."""
    if member.stay.is_member is not None:
        return member
    version, is_member, joined, left = found.event.originator_version, False, None, None
    async for delivery in log.read(found.delivery.stream, subject=found.delivery.subject):
        if delivery.headers.get(subjects.TYPE) not in MEMBERSHIP:
            continue
        event, at_version = decode(delivery), event_version(delivery.headers)
        concerned = getattr(event, "members", None) or {getattr(event, "user_id", "")}
        if member.user_id not in concerned:
            continue
        removed = isinstance(event, MemberRemoved)
        if at_version < version:
            is_member = not removed
            joined, left = (joined, (at_version, event.timestamp)) if removed else ((at_version, event.timestamp), None)
        elif removed:
            left = left or (at_version, event.timestamp)
        elif not is_member:
            joined = (at_version, event.timestamp)
            break
    stay = Stay(is_member, *(joined or (None, None)), *(left or (None, None)))
    return replace(member, stay=stay)


def _message(found: Found, *, body: bool) -> MessageFact:
    event, delivery = found.event, found.delivery
    return MessageFact(
        message_id=str(event.message_id),
        conversation_id=event.originator_id,
        seq=event.seq,
        version=event.originator_version,
        sender_id=event.actor_id,
        client_msg_id=event.client_msg_id,
        correlation_id=delivery.headers.get(subjects.CORRELATION, ""),
        traceparent=delivery.headers.get(subjects.TRACE, ""),
        decided_at=event.timestamp,
        stored_at=delivery.stored_at.astimezone(UTC),
        stream=delivery.stream,
        sequence=delivery.sequence,
        append_id=found.append_id,
        append_first=found.append_first,
        append_last=found.append_last,
        body=msgspec.json.encode(event.body).decode() if body else None,
    )


def _way(models: ReadModels, limit: int) -> str | None:
    if not models.members:
        return None
    ways = [("write", writes(models.members, limit)), ("read", reads(models.members, limit))]
    return " and ".join(way for way, taken in ways if taken)


def _with_sessions(member: MemberFact, gateways: Gateways, last_seen_at: datetime | None) -> MemberFact:
    sessions = [
        (answer.gateway, session)
        for answer in gateways.answers
        for session in answer.sessions
        if session.user_id == member.user_id
    ]
    sessions.sort(key=lambda entry: entry[1].began_s or 0.0)
    return replace(member, sessions=sessions, last_seen_at=last_seen_at)
