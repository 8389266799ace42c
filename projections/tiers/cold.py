"""The cold tier: a conversation's messages and events out of ClickHouse, in the very form the warm tier has.

It is asked for exact numbers, which have no holes: what it does not give, it does not have. Who asks has authorised.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import structlog

from domain.errors import Unavailable
from domain.ids import partition_of, slot_of
from projections import metrics
from projections.archive import raw
from projections.archive.clickhouse import ArchiveRefused
from projections.archive.typed import text_body
from projections.reading import Row
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery, LogUnavailable
from streams.public import public_data

PAGE_S: Final = 4.0  # a page takes milliseconds; less than the five seconds after which a command is given up

# Of a message; `Cold.rows_of` makes rows as Postgres has them of these.
COLUMNS: Final = "message_id, seq, version, sender_id, client_msg_id, created_at, text, body, reply_to, mentions"

# PREWHERE, which ClickHouse does not choose by itself for columns of the key: else all columns of each granule (8,192
# rows, in each month) are read for a page of 50, and it takes three times as long.
# A batch that was inserted twice beyond the memory for its token would give rows twice: the first is enough.
_MESSAGES: Final = f"""
    SELECT {COLUMNS}
    FROM messages PREWHERE conversation_id = {{id:UInt64}} AND seq >= {{low:UInt64}} AND seq <= {{high:UInt64}}
    ORDER BY seq LIMIT 1 BY seq"""

_EVENTS: Final = f"""
    SELECT {raw.SELECT} FROM events
    PREWHERE subject = {{subject:String}} AND version >= {{low:UInt64}} AND version <= {{high:UInt64}}
    WHERE stream = {{stream:String}}
    ORDER BY version LIMIT 1 BY version"""

_RECEIPT: Final = f"""
    SELECT {COLUMNS} FROM messages
    PREWHERE conversation_id = {{id:UInt64}} AND client_msg_id = {{client:String}} WHERE sender_id = {{sender:String}}
    ORDER BY seq LIMIT 1"""

log_ = structlog.get_logger(__name__)

_UNREACHABLE: Final = "this is in the archive, which cannot be reached; try again"

_to_json = msgspec.json.Encoder().encode


class ColdRows(Protocol):
    """What is needed of ClickHouse (`projections.archive.clickhouse`)."""

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, binary: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        """The rows a statement answers with; `{name:Type}` in it is a parameter, `binary` are columns of bytes.

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
        partition = partition_of(slot_of(conversation_id), self._partitions)
        subject = subjects.aggregate(subjects.CONV, partition, str(conversation_id))
        stream = subjects.stream(subjects.CONV, partition)
        values = {"stream": stream, "subject": subject, "low": min(versions), "high": max(versions)}
        asked = set(versions)
        found = {}
        for stored in await self._query(_EVENTS, values, binary=raw.BINARY):
            row = event_row(raw.delivery_of(stored))
            if row is not None and row[1] in asked:
                found[row[1]] = row
        return found

    async def message_sent(self, conversation_id: int, sender_id: str, client_msg_id: str) -> Row | None:
        """The message that a sender posted under a client id; `None` if there is none here."""
        values = {"id": conversation_id, "sender": sender_id, "client": client_msg_id}
        rows = await self.rows_of(_RECEIPT, values)
        return rows[0] if rows else None

    async def rows_of(self, sql: str, values: dict[str, Any]) -> list[Row]:
        """Messages that a statement gives as `COLUMNS`, and maybe more columns, as Postgres has them."""
        return [_warm_row(row) for row in await self._query(sql, values)]

    async def _query(self, sql: str, values: dict[str, Any], *, binary: Sequence[str] = ()) -> Sequence[Sequence[Any]]:
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(PAGE_S):
                rows = await self.rows.query(sql, values, binary=binary)
        except ArchiveRefused as error:
            log_.error("ClickHouse refuses to read the archive", error=str(error))
            raise Unavailable(_UNREACHABLE) from error
        except (LogUnavailable, TimeoutError) as error:
            raise Unavailable(_UNREACHABLE) from error
        metrics.COLD_SECONDS.observe(time.perf_counter() - began_s)
        return rows


def event_row(delivery: Delivery) -> Row | None:
    """An archived event of a conversation as the `changes` read model has it: type, version, time, actor, data.

    `None` for what is no event of ours: nobody could be shown it, and it counts as not being there.
    """
    try:
        event = decode(delivery)
        public = public_data(event).decode()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is damage, and is told
        log_.error("an archived event cannot be read", subject=delivery.subject, error=repr(error))
        return None
    return (event.TOPIC, event.originator_version, event.timestamp, event.actor_id, public)


def json_body(text: str, body: str) -> str:
    """The JSON of a body: of one that is a text only, the text is what is stored."""
    return body or _to_json(text_body(text)).decode()


def _warm_row(row: Sequence[Any]) -> Row:
    """A row as Postgres gives it: JSON, which is not stored as such."""
    message_id, seq, version, sender_id, client_msg_id, created_at, text, body, reply_to, mentions, *more = row
    return (
        *(message_id, seq, version, sender_id, client_msg_id, created_at, json_body(text, body)),
        reply_to or None,  # 0 stands for none
        _to_json(list(mentions)).decode(),
        *more,
    )
