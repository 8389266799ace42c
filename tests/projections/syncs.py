"""Syncs under test, and short ways to say what they told."""

from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from projections.inbox import InboxQueries
from projections.pages import StoredEvent, Synced
from projections.sync import SyncQueries
from streams.cursor import Cursor
from tests.projections.models import Models

PARTITIONS = 2


@pytest.fixture(name="sync")
def sync_fixture(pool: AsyncConnectionPool) -> SyncQueries:
    return SyncQueries(pool)


@pytest.fixture(name="inbox")
def inbox_fixture(pool: AsyncConnectionPool) -> InboxQueries:
    return InboxQueries(pool)


async def opened(pool: AsyncConnectionPool) -> Models:
    return await Models(pool).open()


def versions(events: list[StoredEvent]) -> list[int]:
    return [event.version for event in events]


def told(answer: Synced) -> dict[int, list[int]]:
    """The conversations given, with the versions of their events."""
    return {int(entry.conversation_id): versions(entry.events) for entry in answer.conversations}


async def since(sync: SyncQueries, user: str, cursor: Cursor, **options: Any) -> Synced:
    return await sync.sync(user, cursor, **{"limit": 100, "events_max": 100, **options})


async def seen_by(models: Models, user: str) -> Cursor:
    return models.positions.cursor(user)
