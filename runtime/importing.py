"""Posting logs through the public API, each message by its author, in order, once. Who is addressed is mentioned.

Everything that names what is posted is derived from the input: the conversation by its name, a message by its
file and line. So an import that was cut short is simply run again: what is there answers as a duplicate.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from runtime import irc
from runtime.client import ApiError, HttpClient, Retry

IMPORTER: Final = "irc-importer"  # the user who owns imported conversations
COURTEOUS_PER_S: Final = 1_000  # well under what a server takes, so that others hardly notice
MEMBERS_PER_CALL: Final = 1_000
RETRY_FOR_S: Final = 60.0  # longer than a restart of everything takes
_PLAIN_NAME = re.compile(r"[!-~]{1,48}")  # leaves room for a prefix, or a line number, in 64 characters


class ImportRefused(Exception):
    """The input cannot be imported, said in one line. Raised before anything is posted."""


class PostRefused(Exception):
    """The server refused a message for good; the ones before it are posted."""


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file. `stem` names its messages."""

    path: Path
    stem: str
    log: irc.Log


@dataclass(slots=True)
class Tally:
    """How far an import is. `skipped`: lines that have a nick but no text, or that cannot be a message."""

    skipped: int = 0
    posted: int = 0
    duplicates: int = 0
    conversation_id: str = ""
    last_seq: int = 0


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """All files, read and parsed.

    Raises:
        ImportRefused: one is missing, unreadable or not a file, two have one name, or there is nothing to post.
    """
    sources: list[Source] = []
    named: dict[str, Path] = {}
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImportRefused(f"cannot read {path}: {error.strerror}") from error
        if path.stem in named:
            raise ImportRefused(f"{named[path.stem]} and {path} have one name, which is what names their messages")
        named[path.stem] = path
        sources.append(Source(path, _short(path.stem), irc.parse(content)))
    if not any(source.log.lines for source in sources):
        raise ImportRefused("no line there is an IRC message: [HH:MM] <nick> text")
    return sources


def _short(name: str) -> str:
    """The name itself where it can be part of a client id, else what stands for it."""
    return name if _PLAIN_NAME.fullmatch(name) else hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def client_msg_id(source: Source, line: irc.Line) -> str:
    """What names a message: its file and line."""
    return f"{source.stem}:{line.number}"


def nicks_of(sources: Sequence[Source]) -> list[str]:
    """Every author once, in the order they first speak."""
    return list(dict.fromkeys(line.nick for source in sources for line in source.log.lines))


@dataclass(slots=True)
class Import:
    """One import under way.

    Args:
        mint: a user id to a token.
        per_s: the most messages a second, `None` for no limit.
        retry: for a server that is away.
        on_message: called after each message's ack.
    """

    client: HttpClient
    mint: Callable[[str], str]
    name: str
    per_s: float | None
    retry: Retry
    tally: Tally
    on_message: Callable[[], None]

    async def run(self, sources: Sequence[Source]) -> None:
        """Make or find the conversation, add the authors, post every message after the ack of the one before.

        Raises:
            ClientError: the server was away for too long, or refused the conversation.
            PostRefused: it refused a message.
        """
        nicks = nicks_of(sources)
        await self._open(nicks)
        tokens = {nick: self.mint(nick) for nick in nicks}
        started, done = time.monotonic(), 0
        for source in sources:
            for line in source.log.lines:
                if self.per_s is not None:
                    due_s = started + done / self.per_s - time.monotonic()
                    if due_s > 0:
                        await asyncio.sleep(due_s)
                await self._post(source, line, tokens[line.nick])
                done += 1
                self.on_message()

    async def _open(self, nicks: list[str]) -> None:
        conversation = await self.retry(
            lambda: self.client.create_conversation(
                "group", [], name=self.name, client_conversation_id=f"irc:{_short(self.name)}"
            )
        )
        self.tally.conversation_id = conversation["conversation_id"]
        for start in range(0, len(nicks), MEMBERS_PER_CALL):
            some = nicks[start : start + MEMBERS_PER_CALL]
            await self.retry(partial(self.client.change_members, self.tally.conversation_id, add=some))

    async def _post(self, source: Source, line: irc.Line, token: str) -> None:
        try:
            ack = await self.retry(
                lambda: self.client.post(
                    self.tally.conversation_id,
                    line.text,
                    client_msg_id=client_msg_id(source, line),
                    mentions=[line.addressee] if line.addressee else None,
                    token=token,
                )
            )
        except ApiError as error:
            if error.retryable:
                raise
            raise PostRefused(f"{source.path}, line {line.number}: {error}") from error
        if ack["duplicate"]:
            self.tally.duplicates += 1
        else:
            self.tally.posted += 1
        self.tally.last_seq = max(self.tally.last_seq, ack["seq"])
