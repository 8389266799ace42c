"""Alembic's entry: runs the revisions on the connection that `apply.upgrade` holds."""

from alembic import context

from projections.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
