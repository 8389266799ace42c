"""Migrations: the declared schema is the migrated one, and any number of processes may migrate at once."""

import asyncio
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine

from migrations.postgres.apply import configuration, upgrade
from projections.tables import metadata


async def test_the_migrated_schema_is_the_declared_one(database: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                # The months of `messages` and `changes` are made by the projection.
                "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
                "compare_type": True,
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_many_may_migrate_at_once_and_again(database: str) -> None:
    name = f"test_{token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
        fresh = urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
        await asyncio.gather(*(asyncio.to_thread(upgrade, fresh) for _ in range(4)))
        await asyncio.to_thread(upgrade, fresh)
        async with await psycopg.AsyncConnection.connect(fresh) as migrated:
            cursor = await migrated.execute("SELECT version_num FROM alembic_version")
            assert len(await cursor.fetchall()) == 1
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_a_migration_can_be_taken_back(database: str) -> None:
    name = f"test_{token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
        fresh = urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
        await asyncio.to_thread(upgrade, fresh)
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(fresh), poolclass=NullPool)
        with engine.begin() as sync_connection:
            config = configuration()
            config.attributes["connection"] = sync_connection
            command.downgrade(config, "base")
        engine.dispose()
        async with await psycopg.AsyncConnection.connect(fresh) as emptied:
            cursor = await emptied.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert await cursor.fetchall() == [("alembic_version",)]
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
