"""Users, their devices, blocks, markers and own settings; when members came and went.

The new columns are filled by folding the log again: read models are disposable, so what is there is emptied, and the
projections start at the beginning.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("departures", "users", "devices", "blocks", "markers", "own_settings")


def upgrade() -> None:
    op.execute("TRUNCATE checkpoints, conversations, members, heads, messages, changes, snapshots")
    op.execute("""
        ALTER TABLE members
            ADD COLUMN joined_version  bigint NOT NULL,
            ADD COLUMN joined_sequence bigint NOT NULL,
            ADD COLUMN posted_seq      bigint NOT NULL""")
    # Each message updates its sender's row: room in the page keeps those updates off the two indexes.
    op.execute("ALTER TABLE members SET (fillfactor = 80)")
    op.execute("DROP INDEX members_user_id")
    op.execute("CREATE INDEX members_user_id ON members (user_id, joined_sequence)")
    op.execute("""
        CREATE TABLE departures (
            user_id         varchar COLLATE "C" NOT NULL,
            conversation_id bigint NOT NULL,
            joined_version  bigint NOT NULL,
            left_version    bigint NOT NULL,
            left_sequence   bigint NOT NULL,
            PRIMARY KEY (user_id, conversation_id)
        )""")
    # Every event of a user updates the row in place, as every event of a conversation does its head.
    op.execute("""
        CREATE TABLE users (
            user_id          varchar COLLATE "C" NOT NULL PRIMARY KEY,
            version          bigint NOT NULL,
            sequence         bigint NOT NULL,
            display_name     text,
            avatar_url       text,
            attributes       text NOT NULL,
            profile_at       timestamptz,
            profile_sequence bigint NOT NULL
        ) WITH (fillfactor = 50)""")
    op.execute("""
        CREATE TABLE devices (
            user_id       varchar COLLATE "C" NOT NULL,
            device_id     varchar COLLATE "C" NOT NULL,
            kind          varchar COLLATE "C" NOT NULL,
            registered_at timestamptz NOT NULL,
            revoked_at    timestamptz,
            sequence      bigint NOT NULL,
            PRIMARY KEY (user_id, device_id)
        )""")
    op.execute("""
        CREATE TABLE blocks (
            user_id    varchar COLLATE "C" NOT NULL,
            blocked_id varchar COLLATE "C" NOT NULL,
            blocked    boolean NOT NULL,
            changed_at timestamptz NOT NULL,
            sequence   bigint NOT NULL,
            PRIMARY KEY (user_id, blocked_id)
        )""")
    op.execute("""
        CREATE TABLE markers (
            conversation_id bigint NOT NULL,
            user_id         varchar COLLATE "C" NOT NULL,
            read_seq        bigint NOT NULL,
            read_at         timestamptz NOT NULL,
            sequence        bigint NOT NULL,
            PRIMARY KEY (conversation_id, user_id)
        )""")
    op.execute("CREATE INDEX markers_user_id ON markers (user_id, sequence)")
    op.execute("""
        CREATE TABLE own_settings (
            user_id         varchar COLLATE "C" NOT NULL,
            conversation_id bigint NOT NULL,
            muted_until     timestamptz,
            pinned          boolean NOT NULL,
            hidden          boolean NOT NULL,
            occurred_at     timestamptz NOT NULL,
            sequence        bigint NOT NULL,
            PRIMARY KEY (user_id, conversation_id)
        )""")
    op.execute('ALTER TABLE snapshots ADD COLUMN family varchar COLLATE "C" NOT NULL')
    op.execute("ALTER TABLE snapshots DROP CONSTRAINT snapshots_pkey")
    op.execute("ALTER TABLE snapshots ADD PRIMARY KEY (family, aggregate_id)")


def downgrade() -> None:
    op.execute("TRUNCATE checkpoints, conversations, members, heads, messages, changes, snapshots")
    op.execute("ALTER TABLE snapshots DROP CONSTRAINT snapshots_pkey")
    op.execute("ALTER TABLE snapshots DROP COLUMN family")
    op.execute("ALTER TABLE snapshots ADD PRIMARY KEY (aggregate_id)")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX members_user_id")
    op.execute("CREATE INDEX members_user_id ON members (user_id)")
    op.execute("ALTER TABLE members RESET (fillfactor)")
    op.execute("ALTER TABLE members DROP COLUMN joined_version, DROP COLUMN joined_sequence, DROP COLUMN posted_seq")
