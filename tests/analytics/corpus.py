"""Messages with times of their own in the tables of analysts: the IRC logs as they were written, and an invented chat.

They are put straight into the typed tables. A message that is posted has the time it is posted at, so an imported log
would be of one afternoon.
"""

import random
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from projections.archive.clickhouse import ClickHouse
from runtime import irc

BLOCK: Final = 10_000  # rows of one insert
_TIME: Final = re.compile(rb"\[(\d\d):(\d\d)\]")


class Written(NamedTuple):
    """A message. `mention`: whom it is addressed to, if that is somebody else who writes here; else empty."""

    group: str
    at: datetime
    sender: str
    text: str
    mention: str


def logs(folder: Path) -> Iterator[Written]:
    """The messages of IRC logs named after their days (`2005-05-19.txt`), to the minute."""
    for path in sorted(folder.glob("*.txt")):
        day = datetime.strptime(path.stem, "%Y-%m-%d").replace(tzinfo=UTC)
        content = path.read_bytes()
        raw = dict(irc.lines_of(content))
        for line in irc.parse(content).lines:
            time = _TIME.match(raw[line.number])
            assert time is not None
            at = day + timedelta(hours=int(time[1]), minutes=int(time[2]))
            yield Written("ubuntu", at, line.nick, line.text, line.addressee)


def invented(seed: int, *, days: int = 800, people: int = 40) -> list[Written]:
    """A chat of three groups in which people come and go, ask and answer, the same for the same seed."""
    dice = random.Random(seed)
    names = [f"user-{number}" for number in range(people)]
    found: list[Written] = []
    for day in range(0, days, 9):
        around = dice.sample(names[: 5 + day * (people - 5) // days], 5)
        at = datetime(2024, 1, 1, 22, tzinfo=UTC) + timedelta(days=day)  # over midnight
        for _ in range(40):
            at += timedelta(seconds=dice.choice((5, 70, 600, 2400)))
            text = dice.choice(("does gnome work?", "try KDE, or unity", "plain words about nothing", "é" * 30))
            group, sender = dice.choice(("red", "green", "blue")), dice.choice(around)
            mention = ""
            if dice.random() < 0.5:
                named = dice.choice((*around, "nobody"))
                text = f"{named}: {text}"
                mention = named if named not in ("nobody", sender) else ""
            found.append(Written(group, at, sender, text, mention))
    return found


async def load(clickhouse: ClickHouse, written: Sequence[Written]) -> None:
    """Put messages, in the order given, into an empty archive: a group each, whose members join as they first write."""
    ids = {group: number << 20 for number, group in enumerate(dict.fromkeys(one.group for one in written), 1)}
    seqs = dict.fromkeys(ids, 0)
    began: dict[str, Written] = {}
    joined: dict[tuple[str, str], Written] = {}
    messages: list[tuple[Any, ...]] = []
    for sequence, one in enumerate(written, 1):
        began.setdefault(one.group, one)
        joined.setdefault((one.group, one.sender), one)
        seqs[one.group] += 1
        seq = seqs[one.group]
        place, mentions = ("CONV-0", sequence), [one.mention] if one.mention else []
        messages.append(
            (ids[one.group], seq, seq, sequence, one.sender, str(sequence), one.at, one.text, "", 0, mentions, *place)
        )
    await _insert(clickhouse, "messages", _MESSAGES, messages)
    changes = [
        (ids[one.group], 1, one.at, "created", one.sender, "group", one.group, "{}", 0, "CONV-0", number)
        for number, one in enumerate(began.values(), 1)
    ]
    await _insert(clickhouse, "conversations", _CONVERSATIONS, changes)
    members = [
        (ids[group], number, one.at, sender, "joined", "member", 1, sender, "CONV-0", number)
        for number, ((group, sender), one) in enumerate(joined.items(), 1)
    ]
    await _insert(clickhouse, "memberships", _MEMBERSHIPS, members)


_MESSAGES: Final = (
    *("conversation_id", "seq", "version", "message_id", "sender_id", "client_msg_id", "created_at", "text", "body"),
    *("reply_to", "mentions", "stream", "sequence"),
)
_CONVERSATIONS: Final = (
    *("conversation_id", "version", "occurred_at", "change", "actor_id", "kind", "name", "settings", "members"),
    *("stream", "sequence"),
)
_MEMBERSHIPS: Final = (
    *("conversation_id", "version", "occurred_at", "user_id", "change", "role", "joined_seq", "actor_id"),
    *("stream", "sequence"),
)


async def _insert(clickhouse: ClickHouse, table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    for begin in range(0, len(rows), BLOCK):
        columns = dict(zip(names, map(list, zip(*rows[begin : begin + BLOCK], strict=True)), strict=True))
        await clickhouse.insert(table, columns, token=f"{table}:{begin}")
