"""Migrations: the declared schema is the migrated one, and any number of processes may migrate at once."""

import asyncio
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

from migrations.postgres.apply import configuration, newest, upgrade
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


def test_the_newest_revision_is_told_from_the_names_of_files() -> None:
    assert newest() == ScriptDirectory.from_config(configuration()).get_current_head()


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
        migrate(fresh, "base", down=True)
        async with await psycopg.AsyncConnection.connect(fresh) as emptied:
            cursor = await emptied.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert await cursor.fetchall() == [("alembic_version",)]
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


COLUMNS = """
    SELECT table_name, column_name, data_type, collation_name, is_nullable FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY table_name, column_name"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"


async def test_read_models_of_the_release_before_are_emptied_to_be_filled_again(database: str) -> None:
    name = f"test_{token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
        fresh = urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
        migrate(fresh, "0001")
        async with await psycopg.AsyncConnection.connect(fresh, autocommit=True) as migrated:
            schema = [await (await migrated.execute(what)).fetchall() for what in (COLUMNS, INDEXES)]
            await migrated.execute("INSERT INTO checkpoints VALUES ('conversations', 0, 7)")
            await migrated.execute("INSERT INTO members VALUES (1, 'ann', 'owner', 1, now())")
            await migrated.execute("INSERT INTO snapshots VALUES ('1', 1, 1, 1, '')")
        migrate(fresh, "0002")
        async with await psycopg.AsyncConnection.connect(fresh, autocommit=True) as migrated:
            for table in ("checkpoints", "members", "snapshots"):
                cursor = await migrated.execute(f"SELECT count(*) FROM {table}".encode())
                assert await cursor.fetchall() == [(0,)]
            await migrated.execute("INSERT INTO members VALUES (1, 'ann', 'owner', 1, now(), 1, 1, 0)")
        migrate(fresh, "0001", down=True)
        async with await psycopg.AsyncConnection.connect(fresh, autocommit=True) as migrated:
            assert [await (await migrated.execute(what)).fetchall() for what in (COLUMNS, INDEXES)] == schema
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def migrate(url: str, revision: str, *, down: bool = False) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
    engine.dispose()
