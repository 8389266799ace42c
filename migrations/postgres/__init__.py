"""The Postgres schema, revision by revision (Alembic). `apply.upgrade` brings a database up to date."""
