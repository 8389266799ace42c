"""A cold tier for tests: the archive's ClickHouse, filled by its archiver, that can be made unreachable."""

from collections.abc import Mapping, Sequence
from typing import Any

from projections.archive.clickhouse import ClickHouse
from streams.ports import ArchiveUnavailable, Log
from tests.archive.archiving import archive_all


class ColdStore:
    """`projections.tiers.cold.ColdRows`. `down` makes it unreachable."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self.down = False
        self._clickhouse = clickhouse

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, binary: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        if self.down:
            raise ArchiveUnavailable("ClickHouse is down")
        return await self._clickhouse.query(sql, parameters, binary=binary)

    async def archive(self, log: Log, stream: str) -> None:
        """Everything in a stream."""
        await archive_all(log, self._clickhouse, [stream])

    async def execute(self, sql: str) -> None:
        """Change it behind everybody's back."""
        await self._clickhouse.command(f"{sql} SETTINGS mutations_sync = 1")
