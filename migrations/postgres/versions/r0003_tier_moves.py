"""What has left the warm tier for the cold one."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE tier_moves (
            model         varchar COLLATE "C" NOT NULL,
            month_start   timestamptz NOT NULL,
            month_end     timestamptz NOT NULL,
            moved_at      timestamptz NOT NULL,
            moved_rows    bigint NOT NULL,
            kept_rows     bigint NOT NULL,
            conversations bigint NOT NULL,
            freed_bytes   bigint NOT NULL,
            PRIMARY KEY (model, month_start, moved_at)
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE tier_moves")
