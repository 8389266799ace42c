"""The schemas of Postgres (Alembic) and ClickHouse."""
