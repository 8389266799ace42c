"""The verdict on one member: a plain sentence that says whether they saw the message, and if not, why.

Pure. The strongest evidence decides: a read marker before a push, a push before a session's beginning. What nobody
remembers any more is said to be unknown, never guessed.
"""

from datetime import UTC, datetime
from typing import Final

from api.sessions import CloseCode
from api.testimony import SessionTold
from runtime.tracing.facts import MemberFact, Trace
from streams.public import rfc3339

_TOLD: Final = {"pushed", "resumed", "had"}


def verdict(trace: Trace, member: MemberFact) -> str:
    """The sentence about a member of a trace."""
    who, message = member.user_id, trace.message
    if who == message.sender_id:
        return f"{who} sent it, and was acked as soon as it was stored."
    if (stay := _stay(trace, member)) is not None:
        return stay
    if member.read_seq >= message.seq:
        when = f" at {rfc3339(member.read_at)}" if member.read_at else ""
        return f"{who} has seen it: has read up to seq {member.read_seq}{when}."
    return _pushed(trace, member) or _not_pushed(trace, member)


def _stay(trace: Trace, member: MemberFact) -> str | None:
    """Why the message was not for this user, if it was not."""
    who, stay = member.user_id, member.stay
    if stay.is_member is None and trace.models.error is None:
        return f"It is not known whether {who} was a member then."
    if stay.is_member is not False:
        return None
    version = trace.message.version
    left = stay.left_version
    if left is not None and left < version:
        came = f", and put in again at version {stay.joined_version}, after it" if stay.joined_version else ""
        when = f" at {rfc3339(stay.left_at)}" if stay.left_at else ""
        return f"{who} was not sent it: removed from the conversation{when} (version {left}), before it{came}."
    if stay.joined_version is not None:
        when = f" at {rfc3339(stay.joined_at)}" if stay.joined_at else ""
        return (
            f"{who} was not sent it: put into the conversation{when} (version {stay.joined_version}), after it; "
            "history shows it."
        )
    return f"{who} was not sent it: not a member of the conversation, then or now."


def _pushed(trace: Trace, member: MemberFact) -> str | None:
    """The sentence about who was sent it, if they were, on a connection that took it."""
    who = member.user_id
    told = [entry for entry in member.sessions if entry[1].outcome in _TOLD and not _was_slow(entry[1])]
    if not told:
        return None
    open_ = [entry for entry in told if entry[1].ended_s is None]
    gateway, session = (open_ or told)[-1]
    what = {
        "pushed": "it was written to",
        "resumed": "it was written, with what was missed, to",
        "had": "it was sent before to",
    }[session.outcome]
    ended = "" if session.ended_s is None else f", which ended at {_time(session.ended_s)}"
    return f"{who} was sent it and has not marked it read: {what} {_named(gateway, session)}{ended}.{_dead(trace)}"


def _not_pushed(trace: Trace, member: MemberFact) -> str:
    """The sentence about who was not sent it although they were a member."""
    who, message = member.user_id, trace.message
    here = [entry for entry in member.sessions if entry[1].ended_s is None]
    for gateway, session in reversed(here):
        if session.outcome == "read":
            began = f", at {_time(session.began_s)}," if session.began_s else ""
            return (
                f"{who} was not pushed it: {_named(gateway, session)} began{began} after it was stored, without a "
                f"cursor to resume from; it is for the client to read (inbox, sync, history).{_dead(trace)}"
            )
        if session.outcome == "behind":
            return f"{who} has not been sent it yet: {_named(gateway, session)} waits for what it missed.{_dead(trace)}"
        if session.outcome == "elsewhere":
            return f"{who} was not sent it: {_named(gateway, session)} is open and does not hear the conversation."
        if session.outcome == "connecting":
            return f"{who} has not been sent it yet: {_named(gateway, session)} is connecting."
    if (slow := [entry for entry in member.sessions if _was_slow(entry[1])]) and not here:
        gateway, session = slow[-1]
        before = session.ended_s is not None and session.ended_s < message.stored_at.timestamp()
        return (
            f"{who} {'was not sent it' if before else 'may not have got it'}: {_named(gateway, session)} was closed as "
            f"too slow at {_time(session.ended_s)} ({session.close_code}){', before it was stored' if before else ''}, "
            f"and no session has come back since.{_dead(trace)}"
        )
    if trace.gateways.missing or not trace.gateways.answers:
        missing = trace.gateways.missing or "no"
        said = "of the gateways did not answer" if trace.gateways.missing else "gateway answered"
        return f"It is not known whether {who} was sent it: {missing} {said}.{_dead(trace)}"
    since_s = max(answer.ended_since_s for answer in trace.gateways.answers)
    if message.stored_at.timestamp() < since_s and not member.sessions:
        return (
            f"{who} is not connected now; whether they were when it was stored is not known any more (gateways "
            f"remember sessions that ended since {_time(since_s)}).{_dead(trace)}"
        )
    seen = f" (last seen {rfc3339(member.last_seen_at)})" if member.last_seen_at else ""
    dead = _dead(trace) or " Inbox and sync have it."
    return f"{who} was not sent it: not connected when it was stored, nor since{seen}.{dead}"


def _dead(trace: Trace) -> str:
    """A further sentence about a projection that lacks it: reads do not show it."""
    for projection in trace.models.projections:
        if projection.dead is not None:
            return f" Reads do not show it: the projection {projection.name} could not apply it ({projection.dead})."
        if projection.checkpoint is None or projection.checkpoint < trace.message.sequence:
            return f" Reads do not show it yet: the projection {projection.name} is {projection.behind} events behind."
    return ""


def _was_slow(session: SessionTold) -> bool:
    return session.close_code == CloseCode.TOO_SLOW


def _named(gateway: str, session: SessionTold) -> str:
    device = f" of device {session.device_id}" if session.device_id else ""
    return f"the {session.door} session {session.session_id}{device} on gateway {gateway}"


def _time(at_s: float | None) -> str:
    return "an unknown time" if at_s is None else rfc3339(datetime.fromtimestamp(at_s, UTC))
