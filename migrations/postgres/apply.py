"""Bringing a Postgres database to the newest schema, from any process, at every start.

Nearly every start finds nothing to do. Alembic is loaded only when there is something: loading it is a fifth of the
work of a start, and a gateway that comes back is waited for.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).parent
LOCK = 0x52695665_00000001  # "RiVe", 1: the advisory lock of migrations


def newest() -> str:
    """The newest revision. Files are named after theirs: `r0002_users.py` is 0002."""
    return max(path.name[1:5] for path in (HERE / "versions").glob("r[0-9]*.py"))


def configuration() -> "Config":
    """Alembic's configuration, wherever the package is installed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    return config


def upgrade(postgres_url: str) -> None:
    """Apply every revision that the database lacks, in one transaction. Idempotent.

    Any number of processes may call this at once: one works, the others wait for it and find nothing to do.

    Args:
        postgres_url: `postgresql://…`, as psycopg takes it.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    with psycopg.connect(postgres_url) as database:
        if _revision(database) == newest():
            return

    from alembic import command
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import OperationalError

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise psycopg.OperationalError(str(error.orig or error)) from error
    finally:
        engine.dispose()


def _revision(database: psycopg.Connection) -> str | None:
    """Where a database is; `None`: it is empty."""
    if database.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
        return None
    row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row is not None else None
