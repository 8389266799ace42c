r"""IRC logs: which lines are messages, whose, and with what text.

    [08:36] <nick> text        a message
    [08:36]  * nick text       an action, posted as "/me text", the way an IRC client takes it
    === nick has joined        a notice, no message

The text is everything after the one space that follows the nick, as UTF-8, byte for byte: tabs, control
characters, leading and trailing spaces stay. What is not UTF-8 becomes U+FFFD. Lines end at `\n` (or `\r\n`) only.
The logs we know put a space after each `]` of a nick (`[NP] Tangent`): spaces in a nick are dropped, which gives
the nick that IRC knew.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from domain.errors import Invalid
from domain.ids import check_user_id
from domain.messages import normalised_text

_MESSAGE = re.compile(r"\[\d\d:\d\d\] <([^>]*)>(.*)", re.DOTALL)
_ADDRESSED = re.compile(r"([^\s:,]+)[:,]\s")
# After a `]` the first space belongs to the nick (see above), so the nick ends at the space after that one.
_ACTION = re.compile(r"\[\d\d:\d\d\]  \* ((?:\] ?|[^ \]])+)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A message of a log.

    Attributes:
        number: counts all lines of the file from 1.
        addressee: whom it is addressed to (`nick: …`, `nick, …`), if they wrote before in this log; else empty.
    """

    number: int
    nick: str
    text: str
    addressee: str


@dataclass(slots=True)
class Log:
    """A log as it can be posted.

    Attributes:
        without_text: how many lines name a nick and say nothing; there is nothing to post.
        refused: what cannot be a message of Riverrun, as (line number, reason).
    """

    lines: list[Line] = field(default_factory=list)
    without_text: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def message_of(line: bytes) -> tuple[str, str] | None:
    r"""The nick and the text of a line (without its `\n`), `None` for a notice or anything else.

    The text is empty where the line has none. A text "/me …" is an action's.
    """
    decoded = line.removesuffix(b"\r").decode("utf-8", errors="replace")
    if match := _MESSAGE.fullmatch(decoded):
        nick, text = match.groups()
        return nick.replace(" ", ""), text.removeprefix(" ")
    if match := _ACTION.fullmatch(decoded):
        nick, text = match.groups()
        text = text.removeprefix(" ")
        return nick.replace(" ", ""), f"/me {text}" if text else ""
    return None


def lines_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    r"""The lines of a file, numbered from 1; the end of the file ends the last one if `\n` does not."""
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return enumerate(lines, 1)


def parse(content: bytes) -> Log:
    """All messages of a log, in order, checked against the limits of a user id and of a text."""
    log = Log()
    nicks: set[str] = set()
    for number, line in lines_of(content):
        message = message_of(line)
        if message is None:
            continue
        nick, text = message
        if not text:
            log.without_text += 1
            continue
        try:
            check_user_id(nick, field="nick")
            text = normalised_text(text)
        except Invalid as refusal:
            log.refused.append((number, refusal.detail))
            continue
        # Of those who have written before, so that a line stays the same when the log grows.
        log.lines.append(Line(number, nick, text, _addressee(nick, text, nicks)))
        nicks.add(nick)
    return log


def _addressee(nick: str, text: str, nicks: Set[str]) -> str:
    named = _ADDRESSED.match(text)
    return named[1] if named and named[1] in nicks and named[1] != nick else ""
