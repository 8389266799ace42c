"""Up to where the snapshots know of everything, so that the log may forget it."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE covered (
            stream   varchar COLLATE "C" NOT NULL PRIMARY KEY,
            schemas  varchar COLLATE "C" NOT NULL,
            sequence bigint NOT NULL
        )""")
    # Without a snapshot, an aggregate of which the log has nothing would pass for a new one.
    op.execute("""
        CREATE FUNCTION uncover() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM covered;
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER uncover AFTER DELETE OR TRUNCATE ON snapshots
        FOR EACH STATEMENT EXECUTE FUNCTION uncover()""")


def downgrade() -> None:
    op.execute("DROP TRIGGER uncover ON snapshots")
    op.execute("DROP FUNCTION uncover")
    op.execute("DROP TABLE covered")
