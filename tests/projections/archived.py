"""A cold tier for tests: ClickHouse in this process, with the tables of the archive, filled from a log."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from domain.events import MessagePosted
from streams.codec import decode, occurred_at
from streams.ports import Log, LogUnavailable

_MESSAGES = """
CREATE TABLE messages (
    conversation_id UInt64, seq UInt64, version UInt64, message_id UInt64, sender_id String, client_msg_id String,
    created_at DateTime64(3, 'UTC'), text String, body String, reply_to Nullable(UInt64), mentions Array(String),
    stream LowCardinality(String), sequence UInt64)
ENGINE = MergeTree PARTITION BY toYYYYMM(created_at) ORDER BY (conversation_id, seq)"""


class ColdStore:
    """`projections.tiers.cold.ColdRows` over chDB. `down` makes it unreachable."""

    def __init__(self, folder: Path) -> None:
        import clickhouse_connect

        self.down = False
        self.asked: list[str] = []
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._client = clickhouse_connect.get_client(dsn=f"chdb://{folder}")
        migration = Path(__file__).parents[2] / "migrations" / "clickhouse" / "0001_events.sql"
        self._client.command(migration.read_text().rstrip().rstrip(";"))
        self._client.command(_MESSAGES)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        if self.down:
            raise LogUnavailable("ClickHouse is down")
        self.asked.append(sql)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(
            self._thread, lambda: self._client.query(sql, parameters=dict(parameters or {}))
        )
        return result.result_rows

    async def archive(self, log: Log, stream: str) -> None:
        """Everything in a stream, in place of what is here."""
        events, messages = [], []
        async for delivery in log.read(stream):
            event = decode(delivery)
            headers = dict(delivery.headers)
            events.append(
                [
                    delivery.stream,
                    delivery.sequence,
                    delivery.subject,
                    event.TOPIC,
                    event.originator_version,
                    occurred_at(headers),
                    event.actor_id,
                    headers,
                    delivery.data,
                ]
            )
            if isinstance(event, MessagePosted):
                messages.append(
                    [
                        int(event.originator_id),
                        event.seq,
                        event.originator_version,
                        event.message_id,
                        event.actor_id,
                        event.client_msg_id,
                        event.timestamp,
                        event.body["text"],
                        msgspec.json.encode(event.body).decode(),
                        event.reply_to,
                        event.mentions,
                        delivery.stream,
                        delivery.sequence,
                    ]
                )
        for table, rows in (("events", events), ("messages", messages)):
            self._client.command(f"TRUNCATE TABLE {table}")
            if rows:
                self._client.insert(table, rows)

    def execute(self, sql: str) -> None:
        self._client.command(sql)

    def close(self) -> None:
        self._client.close()
        self._thread.shutdown()
