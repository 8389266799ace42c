"""`riverrun as-of`: a conversation, a membership or an inbox as it was, folded from the log."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from rich.table import Table
from rich.text import Text

from domain.ids import check_user_id, parse_id
from projections.past.moment import Moment
from projections.past.past import Past
from projections.past.views import PastConversationView, PastInbox, PastMembership
from projections.reading import Database
from runtime.cli import fail
from runtime.cli.target import Target, resolve_target
from runtime.cli.times import time_of
from runtime.cli.whole_log import run_plainly, whole_log
from runtime.terminal import printable, reader_may_leave

EVENTS_MAX: Final = 1_000_000
SHOWN_MAX: Final = 100_000  # members of a conversation, conversations of an inbox: all of them


class What(StrEnum):
    """What there is a past of."""

    conversation = "conversation"
    membership = "membership"
    inbox = "inbox"


_NAMES: Final = {What.conversation: "ID", What.membership: "CONVERSATION USER", What.inbox: "USER"}


def as_of(
    moment: Annotated[str, typer.Argument(metavar="TIME|VERSION", help="2h (ago), now, ISO 8601; or 17, a version.")],
    what: Annotated[What, typer.Argument(help="What to show as it was.")],
    names: Annotated[
        list[str], typer.Argument(metavar="ID|CONVERSATION USER|USER", help="Of which conversation, which user.")
    ],
    *,
    events_max: Annotated[int, typer.Option("--events", min=1, help="Events that may be folded.")] = EVENTS_MAX,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Show a conversation, a membership or an inbox as it was at a time, or at a version of the conversation.

    Exit status: 0 shown, 2 there was no such thing, or a server does not answer.
    """
    if len(names) != len(_NAMES[what].split()):
        fail(f"as-of … {what} takes {_NAMES[what]}")
    when = Moment(version=int(moment)) if _is_version(moment) else Moment(at=time_of(moment, "TIME"))
    target = resolve_target(url, data_dir)
    found = run_plainly(lambda: _ask(target, when, what, names, events_max))
    with reader_may_leave():
        if as_json:
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        else:
            _print(found)


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) < 1 << 63


async def _ask(target: Target, moment: Moment, what: What, names: Sequence[str], events_max: int) -> Any:
    pool = AsyncConnectionPool(target.postgres_url, min_size=0, max_size=1, kwargs={"autocommit": True}, open=False)
    async with whole_log(target, "as-of") as log, pool:
        past = Past(log, Database(pool), partitions=target.partitions, events_max=events_max)
        match what:
            case What.conversation:
                return await past.conversation(parse_id(names[0]), moment, limit=SHOWN_MAX)
            case What.membership:
                return await past.membership(parse_id(names[0]), check_user_id(names[1]), moment)
            case What.inbox:
                if moment.at is None:
                    fail("an inbox is of many conversations, which have versions of their own: give a time")
                return await past.inbox(check_user_id(names[0]), moment.at, limit=SHOWN_MAX, hidden=True)


def _print(found: PastConversationView | PastMembership | PastInbox) -> None:
    console = Console(soft_wrap=True)
    match found:
        case PastConversationView():
            facts = msgspec.to_builtins(found.conversation)
            if found.last_message is not None:
                facts["last_message"] = found.last_message.body
            _facts(console, facts)
            _table(console, "members", ("user_id", "role", "joined_seq", "joined_at"), found.members)
            _as_of(console, found)
        case PastMembership():
            facts = msgspec.to_builtins(found)
            del facts["as_of"]
            _facts(console, facts)
            _as_of(console, found)
        case PastInbox():
            columns = ("conversation_id", "kind", "name", "version", "last_seq", "read_seq", "unread", "updated_at")
            _table(console, f"inbox of {found.user_id} at {found.at}", columns, found.conversations)


def _facts(console: Console, facts: dict[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name, _text(value))
    console.print(table)


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
    table = Table(title=f"{title}: {len(rows):,}")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column.endswith("_id"))
    for row in rows:
        table.add_row(*(_text(getattr(row, column)) for column in columns))
    console.print(table)


def _as_of(console: Console, found: PastConversationView | PastMembership) -> None:
    as_of = found.as_of
    line = f"as of version {as_of.version}, decided at {as_of.occurred_at}, {as_of.stream}:{as_of.sequence}"
    console.print(line, highlight=False)


def _text(value: Any) -> Text:
    return Text("" if value is None else printable(str(value)))
