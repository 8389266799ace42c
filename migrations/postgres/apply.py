"""Bringing a Postgres database to the newest schema, from any process, at every start."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text

LOCK = 0x52695665_00000001  # "RiVe", 1: the advisory lock of migrations


def configuration() -> Config:
    """Alembic's configuration, wherever the package is installed."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(postgres_url: str, revision: str = "head") -> None:
    """Apply every revision that the database lacks, in one transaction. Idempotent.

    Any number of processes may call this at once: one works, the others wait for it and find nothing to do.

    Args:
        postgres_url: `postgresql://…`, as psycopg takes it.

    Raises:
        sqlalchemy.exc.OperationalError, psycopg.OperationalError: Postgres cannot be reached.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()
