"""A random walk through histories, by the public door: every page must be what was told, whatever tiers it is from."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from domain.ids import time_ms_of
from runtime.tokens import mint
from streams.public import rfc3339
from tests.proof.bars import Bar
from tests.proof.outcome import Outcome
from tests.proof.told import Told

WALKERS: Final = 4
STEPS_MAX: Final = 25  # pages next to each other; then somewhere else
LIMITS: Final = (10, 50, 200)
TOKEN_S: Final = 3_600
TIERS: Final = "Riverrun-Tiers"

_FIELDS: Final = (
    *("message_id", "seq", "version", "sender_id", "client_msg_id", "created_at", "body", "reply_to", "mentions"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Walk:
    """Walks until so many pages are read.

    Args:
        url: of the door.
        secret: to mint tokens of members with.
    """

    def __init__(self, url: str, secret: str, told: Sequence[Told], *, seed: int) -> None:
        self.outcome = Outcome("walk", unit="pages")
        self._url = url
        self._secret = secret
        self._told = [one for one in told if one.last_seq]
        self._weights = [one.last_seq**0.5 for one in self._told]  # small ones are to be seen as well
        self._seed = seed
        self._taken_s: dict[str, list[float]] = defaultdict(list)

    async def run(self, pages: int, bar: Bar) -> Outcome:
        """Read so many pages of messages, and of events."""
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=httpx.Limits()) as client:
            walkers = [self._walk(client, random.Random(self._seed * WALKERS + n), pages, bar) for n in range(WALKERS)]
            await asyncio.gather(*walkers)
        tiers = Counter({name: len(taken) for name, taken in self._taken_s.items()})
        self.outcome.note = "; ".join(f"{count:,} {name}" for name, count in tiers.most_common())
        for name, taken in self._taken_s.items():
            self.outcome.numbers[f"{name}: p99 ms"] = round(1000 * sorted(taken)[len(taken) * 99 // 100], 1)
        return self.outcome

    async def _walk(self, client: httpx.AsyncClient, dice: random.Random, pages: int, bar: Bar) -> None:
        while self.outcome.count < pages:
            (told,) = dice.choices(self._told, self._weights)
            headers = {"Authorization": f"Bearer {mint(told.reader, ttl_s=TOKEN_S, admin=False, secret=self._secret)}"}
            path = f"/v1/conversations/{told.conversation_id}"
            step = dice.choice((self._down, self._up, self._events))
            at = dice.randint(0, told.last_version if step == self._events else told.last_seq)
            for _ in range(dice.randint(1, STEPS_MAX)):
                self.outcome.count += 1
                bar(self.outcome.count, pages)
                going = await step(client, told, path, headers, at, dice.choice(LIMITS))
                if going is None or self.outcome.count >= pages:
                    break
                at = going

    async def _down(
        self, client: httpx.AsyncClient, told: Told, path: str, headers: dict[str, str], at: int, limit: int
    ) -> int | None:
        """Messages before a seq, back through time."""
        page = await self._get(client, f"{path}/messages", headers, {"before": at + 1, "limit": limit})
        wanted = range(max(1, at - limit + 1), at + 1)
        self._find(told, messages_differ(told, page, wanted, has_more=bool(wanted) and wanted.start > 1))
        return wanted.start - 1 if wanted and wanted.start > 1 else None

    async def _up(
        self, client: httpx.AsyncClient, told: Told, path: str, headers: dict[str, str], at: int, limit: int
    ) -> int | None:
        """Messages after a seq."""
        page = await self._get(client, f"{path}/messages", headers, {"after": at, "limit": limit})
        wanted = range(at + 1, min(at + limit, told.last_seq) + 1)
        self._find(told, messages_differ(told, page, wanted, has_more=wanted.stop <= told.last_seq))
        return wanted.stop - 1 if wanted.stop <= told.last_seq else None

    async def _events(
        self, client: httpx.AsyncClient, told: Told, path: str, headers: dict[str, str], at: int, limit: int
    ) -> int | None:
        """Events after a version, as a client fills a gap."""
        page = await self._get(client, f"{path}/events", headers, {"after": at, "limit": limit})
        wanted = range(at + 1, min(at + limit, told.last_version) + 1)
        self._find(told, events_differ(told, page, wanted))
        return wanted.stop - 1 if wanted.stop <= told.last_version else None

    async def _get(
        self, client: httpx.AsyncClient, path: str, headers: dict[str, str], query: dict[str, int]
    ) -> dict[str, Any]:
        began_s = time.perf_counter()
        response = await client.get(path, params=query, headers=headers)
        if response.status_code != 200:
            self.outcome.fault(f"{path} {query}: {response.status_code} {response.text[:200]}")
            return {}
        self._taken_s[response.headers[TIERS]].append(time.perf_counter() - began_s)
        page: dict[str, Any] = response.json()
        return page

    def _find(self, told: Told, faults: Iterable[str]) -> None:
        for fault in faults:
            self.outcome.fault(f"conversation {told.conversation_id} ({told.kind}): {fault}")


def messages_differ(told: Told, page: dict[str, Any], wanted: range, *, has_more: bool) -> Iterator[str]:
    """Where a page of messages is not what was told, a line each."""
    messages = page.get("messages", [])
    if (found := [message["seq"] for message in messages]) != list(wanted):
        yield f"messages {found[:1]} to {found[-1:]}, {len(found)} of them, not {wanted.start} to {wanted.stop - 1}"
    elif page.get("has_more") is not has_more:
        yield f"has_more is {page.get('has_more')} at {wanted.start} to {wanted.stop - 1}"
    for message in messages:
        if not _is_told(told, message, message["seq"]):
            yield f"message {message['seq']} is not what was told"


def events_differ(told: Told, page: dict[str, Any], wanted: range) -> Iterator[str]:
    """Where a page of events is not what was told, a line each."""
    events = page.get("events", [])
    if (found := [event["version"] for event in events]) != list(wanted):
        yield f"versions {found[:1]} to {found[-1:]}, {len(found)} of them, not {wanted.start} to {wanted.stop - 1}"
    for event in events:
        seq = told.seq_at(event["version"])
        if (event["type"] == "message.posted") is (seq is None):
            yield f"version {event['version']} is {event['type']}"
        elif seq is not None and not _is_told(told, event["data"], seq):
            yield f"version {event['version']} is not the message {seq} that was told"


def _is_told(told: Told, message: dict[str, Any], seq: int) -> bool:
    return 1 <= seq <= told.last_seq and {name: message[name] for name in _FIELDS} == expected(told, seq)


def expected(told: Told, seq: int) -> dict[str, Any]:
    """A message as clients are to see it."""
    message_id, reply_to = told.message_ids[seq - 1], told.reply_to(seq)
    return {
        "message_id": str(message_id),
        "seq": seq,
        "version": told.versions[seq - 1],
        "sender_id": told.sender(seq),
        "client_msg_id": f"m{seq}",
        "created_at": rfc3339(_EPOCH + timedelta(milliseconds=time_ms_of(message_id))),
        "body": {"type": "text", "text": told.text(seq)},
        "reply_to": None if reply_to is None else str(reply_to),
        "mentions": told.mentions(seq),
    }
