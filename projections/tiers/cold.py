"""The cold tier: a conversation's messages and events out of ClickHouse, in the very form the warm tier has.

It is asked for exact numbers, which have no holes: what it does not give, it does not have. Who asks has authorised.
"""

import asyncio
import time
from binascii import unhexlify
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import structlog

from domain.errors import Unavailable
from domain.ids import partition_of, slot_of
from projections import metrics
from projections.reading import Row
from streams import subjects
from streams.codec import decode_parts
from streams.ports import LogUnavailable
from streams.public import public_data

PAGE_S: Final = 4.0  # a page takes milliseconds; less than the five seconds after which a command is given up

# Of a message; `Cold.rows_of` makes rows as Postgres has them of these.
COLUMNS: Final = (
    "message_id, seq, version, sender_id, client_msg_id, toUnixTimestamp64Milli(created_at), body, reply_to, mentions"
)

# A batch that was inserted twice beyond the memory for its token would give rows twice: the first is enough.
_MESSAGES: Final = f"""
    SELECT {COLUMNS}
    FROM messages WHERE conversation_id = {{id:UInt64}} AND seq >= {{low:UInt64}} AND seq <= {{high:UInt64}}
    ORDER BY seq LIMIT 1 BY seq"""

_EVENTS: Final = """
    SELECT version, headers, hex(data) FROM events
    WHERE subject = {subject:String} AND version >= {low:UInt64} AND version <= {high:UInt64}
    ORDER BY version LIMIT 1 BY version"""  # hex: MessagePack is no text, as which clients take strings

_RECEIPT: Final = f"""
    SELECT {COLUMNS} FROM messages
    WHERE conversation_id = {{id:UInt64}} AND sender_id = {{sender:String}} AND client_msg_id = {{client:String}}
    ORDER BY seq LIMIT 1"""

log_ = structlog.get_logger(__name__)

_to_json = msgspec.json.Encoder().encode


class ColdRows(Protocol):
    """What is needed of ClickHouse (`projections.archive.clickhouse`)."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """The rows a statement answers with; `{name:Type}` in it is a parameter.

        Raises:
            LogUnavailable: there is no ClickHouse, or it does not answer.
        """
        ...


class Cold:
    """Reads the cold tier of one deployment.

    Args:
        rows: opened and closed by its maker.
        partitions: of the deployment: the subject of a conversation names its partition.

    All methods raise `Unavailable` when ClickHouse does not answer in time.
    """

    def __init__(self, rows: ColdRows, *, partitions: int) -> None:
        self.rows = rows
        self._partitions = partitions

    async def messages(self, conversation_id: int, seqs: Sequence[int]) -> dict[int, Row]:
        """Messages by seq, as rows of `projections.entries.message_of`; those that are not here are left out."""
        values = {"id": conversation_id, "low": min(seqs), "high": max(seqs)}
        asked = set(seqs)
        return {row[1]: row for row in await self.rows_of(_MESSAGES, values) if row[1] in asked}

    async def events(self, conversation_id: int, versions: Sequence[int]) -> dict[int, Row]:
        """Public events by version, as rows of type, version, time, actor and data, the JSON that was pushed; those
        that are not here are left out."""
        subject = self.subject(conversation_id)
        values = {"subject": subject, "low": min(versions), "high": max(versions)}
        asked = set(versions)
        found = {}
        for version, headers, data in await self._query(_EVENTS, values):
            if version in asked and (row := event_row(subject, headers, stored_data(data))) is not None:
                found[version] = row
        return found

    async def message_sent(self, conversation_id: int, sender_id: str, client_msg_id: str) -> Row | None:
        """The message that a sender posted under a client id; `None` if there is none here."""
        values = {"id": conversation_id, "sender": sender_id, "client": client_msg_id}
        rows = await self.rows_of(_RECEIPT, values)
        return rows[0] if rows else None

    async def rows_of(self, sql: str, values: dict[str, Any]) -> list[Row]:
        """Messages that a statement gives as `COLUMNS`, and maybe more columns, as Postgres has them."""
        return [_warm_row(row) for row in await self._query(sql, values)]

    def subject(self, conversation_id: int) -> str:
        """The one subject of a conversation."""
        partition = partition_of(slot_of(conversation_id), self._partitions)
        return subjects.aggregate(subjects.CONV, partition, str(conversation_id))

    async def _query(self, sql: str, values: dict[str, Any]) -> Sequence[Sequence[Any]]:
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(PAGE_S):
                rows = await self.rows.query(sql, values)
        except (LogUnavailable, TimeoutError) as error:
            raise Unavailable("this is in the archive, which cannot be reached; try again") from error
        metrics.COLD_SECONDS.observe(time.perf_counter() - began_s)
        return rows


def stored_data(encoded: str) -> bytes:
    """The data of an archived event, which was asked for in hexadecimal."""
    return unhexlify(encoded)


def event_row(subject: str, headers: Mapping[str, str], data: bytes) -> Row | None:
    """An archived event of a conversation as the `changes` read model has it: type, version, time, actor, data.

    `None` for what is no event of ours: nobody could be shown it, and it counts as not being there.
    """
    try:
        event = decode_parts(subject, headers, data)
        public = public_data(event).decode()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is damage, and is told
        log_.error("an archived event cannot be read", subject=subject, error=repr(error))
        return None
    return (event.TOPIC, event.originator_version, event.timestamp, event.actor_id, public)


def _warm_row(row: Sequence[Any]) -> Row:
    """A row as Postgres gives it: a time, and JSON where ClickHouse has an array."""
    message_id, seq, version, sender_id, client_msg_id, created_ms, body, reply_to, mentions, *more = row
    created_at = datetime.fromtimestamp(created_ms / 1000, UTC)
    return (
        *(message_id, seq, version, sender_id, client_msg_id, created_at, body),
        reply_to or None,  # 0 stands for none
        _to_json(list(mentions)).decode(),
        *more,
    )
