"""A trace as people read it: what happened, with times, and then what each member got."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from api.testimony import SessionTold
from runtime.tracing.facts import MemberFact, Trace
from streams.public import rfc3339

WIDTH: Final = 13  # of the times at the left

_SAID: Final = {
    "pushed": "pushed",
    "resumed": "pushed with what was missed",
    "had": "had it before: the client's cursor says so",
    "read": "not pushed: it began after the message was stored, and is to read it",
    "behind": "not pushed yet: it waits for what it missed",
    "out": "not pushed: out of the conversation",
    "elsewhere": "not pushed: it does not hear the conversation",
    "ended": "not pushed: it had ended by then",
    "connecting": "not pushed: it is connecting",
}


def timeline(trace: Trace) -> Iterator[str]:
    """The lines."""
    message = trace.message
    yield f"message {message.message_id} · conversation {message.conversation_id} · seq {message.seq}"
    yield ""
    yield from _written(trace)
    yield from _projected(trace)
    yield from _fanned_out(trace)
    yield ""
    for member in trace.members:
        yield from _member(trace, member)
    hidden = trace.members_total - len(trace.members)
    if hidden > 0:
        yield f"… and {hidden:,} more members; ask for one with --user"


def _written(trace: Trace) -> Iterator[str]:
    message = trace.message
    yield _line(rfc3339(message.decided_at), "")
    correlation = message.correlation_id or "none"
    yield _line("0 ms", f"command     by {message.sender_id}, client_msg_id {message.client_msg_id}")
    yield _line("", f"            correlation_id {correlation}")
    if message.traceparent:
        yield _line("", f"            traceparent {message.traceparent}")
    group = message.append_last - message.append_first + 1
    place = message.sequence - message.append_first + 1
    of = f"event {place} of {group} of append {message.append_id}" if message.append_id else "append unknown"
    yield _line(
        _after(trace, message.stored_at),
        f"append      {message.stream} sequence {message.sequence}, version {message.version}, {of}",
    )
    yield _line("", f"ack         to {message.sender_id}, as soon as it was stored")
    if message.body is not None:
        yield _line("", f"body        {message.body}")


def _projected(trace: Trace) -> Iterator[str]:
    models, hot, sequence = trace.models, trace.hot, trace.message.sequence
    if models.error:
        yield _line("", f"read models {models.error}")
    for projection in models.projections:
        if projection.dead is not None:
            what = f"could not apply it, it is in DEAD: {projection.dead}"
        elif projection.checkpoint is None:
            what = "has never run"
        elif projection.checkpoint < sequence:
            what = f"has not come to it: checkpoint {projection.checkpoint}, {projection.behind} behind"
        else:
            what = f"has it: checkpoint {projection.checkpoint}, {projection.behind} behind"
        yield _line("", f"projection  {projection.name} {what}")
    if not models.error:
        stored, told = ("there" if there else "missing" for there in (models.is_stored, models.is_told))
        yield _line("", f"read model  row in messages {stored}, in changes {told}")
    if hot.error:
        yield _line("", f"hot store   {hot.error}")
    else:
        has = hot.position is not None and hot.position >= sequence
        head = "no head kept" if hot.head_seq is None else f"head at seq {hot.head_seq}"
        yield _line("", f"hot store   {'has it' if has else 'has not come to it'}: position {hot.position}, {head}")


def _fanned_out(trace: Trace) -> Iterator[str]:
    fanout, gateways = trace.fanout, trace.gateways
    if fanout.place is None:
        what = "has no place in the stream"
    elif fanout.place < trace.message.sequence:
        what = f"has not come to it: {fanout.behind} behind"
    else:
        what = f"is past it, {fanout.behind} behind"
    members = trace.models.members
    as_then = "" if trace.models.as_then else " now"
    way = f"{fanout.way}, to {members:,} members{as_then}" if fanout.way else "way unknown"
    yield _line("", f"fan-out     {way}; it {what}")
    for answer in gateways.answers:
        if answer.written_s is not None:
            at = datetime.fromtimestamp(answer.written_s, UTC)
            what = f"written to {answer.written_sessions} sessions"
            yield _line(_after(trace, at), f"push        gateway {answer.gateway}: {what}")
        elif answer.pushes_since_s > trace.message.stored_at.timestamp():
            since = rfc3339(datetime.fromtimestamp(answer.pushes_since_s, UTC))
            yield _line("", f"push        gateway {answer.gateway}: not known any more (remembers since {since})")
        else:
            yield _line("", f"push        gateway {answer.gateway}: to nobody")
    if gateways.missing:
        yield _line("", f"push        {gateways.missing} gateways did not answer")
    elif not gateways.answers:
        yield _line("", "push        no gateway answered")


def _member(trace: Trace, member: MemberFact) -> Iterator[str]:
    stay, marks = member.stay, []
    if stay.joined_version is not None:
        marks.append(f"in since version {stay.joined_version}")
    if stay.left_version is not None:
        marks.append(f"removed at version {stay.left_version}")
    if not trace.models.error:
        marks.append(f"read up to seq {member.read_seq}")
    if member.muted:
        marks.append("muted")
    if member.hidden:
        marks.append("hidden")
    yield f"{member.user_id}: {', '.join(marks) or 'nothing known'}"
    if member.blocker is not None and member.blocked_at is not None:
        yield _line("", f"block       by {member.blocker} since {rfc3339(member.blocked_at)}, after it")
    for gateway, session in member.sessions:
        yield _line("", f"session     {session.session_id} {_session(session)} on {gateway}: {_SAID[session.outcome]}")
    yield _line("", f"⇒ {member.verdict}")


def _session(session: SessionTold) -> str:
    words = [session.door, session.device_kind if session.device_id is None else session.device_id]
    if session.began_s is not None:
        words.append(f"since {_time(session.began_s)}")
    if session.recovered:
        words.append("resumed")
    if session.ended_s is not None:
        code = "by the client" if session.close_code is None else f"with {session.close_code}"
        words.append(f"ended {code} {_time(session.ended_s)}")
    return " ".join(words)


def _line(at: str, what: str) -> str:
    return f"  {at:>{WIDTH}}  {what}".rstrip()


def _after(trace: Trace, moment: datetime) -> str:
    return f"+{(moment - trace.message.decided_at).total_seconds() * 1000:,.1f} ms"


def _time(at_s: float) -> str:
    return rfc3339(datetime.fromtimestamp(at_s, UTC))
