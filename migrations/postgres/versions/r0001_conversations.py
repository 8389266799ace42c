"""The read models of conversations, their checkpoints, and the snapshots of aggregates."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("checkpoints", "conversations", "members", "heads", "messages", "changes", "snapshots")


def upgrade() -> None:
    op.execute("""
        CREATE TABLE checkpoints (
            projection varchar COLLATE "C" NOT NULL,
            partition  integer NOT NULL,
            sequence   bigint NOT NULL,
            PRIMARY KEY (projection, partition)
        )""")
    op.execute("""
        CREATE TABLE conversations (
            conversation_id bigint NOT NULL PRIMARY KEY,
            kind            varchar COLLATE "C" NOT NULL,
            name            text,
            settings        text NOT NULL,
            created_by      varchar COLLATE "C" NOT NULL,
            created_at      timestamptz NOT NULL,
            updated_at      timestamptz NOT NULL,
            member_count    integer NOT NULL,
            version         bigint NOT NULL
        )""")
    op.execute("""
        CREATE TABLE members (
            conversation_id bigint NOT NULL,
            user_id         varchar COLLATE "C" NOT NULL,
            role            varchar COLLATE "C" NOT NULL,
            joined_seq      bigint NOT NULL,
            joined_at       timestamptz NOT NULL,
            PRIMARY KEY (conversation_id, user_id)
        )""")
    op.execute("CREATE INDEX members_user_id ON members (user_id)")
    # Rows of heads are updated for ever in place: room in the page keeps those updates off the index.
    op.execute("""
        CREATE TABLE heads (
            conversation_id bigint NOT NULL PRIMARY KEY,
            version         bigint NOT NULL,
            sequence        bigint NOT NULL,
            updated_at      timestamptz NOT NULL,
            last_seq        bigint NOT NULL,
            last_message_id bigint,
            last_sender_id  varchar COLLATE "C",
            last_message_at timestamptz,
            preview         text
        ) WITH (fillfactor = 50)""")
    op.execute("""
        CREATE TABLE messages (
            conversation_id bigint NOT NULL,
            seq             bigint NOT NULL,
            created_at      timestamptz NOT NULL,
            version         bigint NOT NULL,
            sequence        bigint NOT NULL,
            message_id      bigint NOT NULL,
            sender_id       varchar COLLATE "C" NOT NULL,
            client_msg_id   varchar COLLATE "C" NOT NULL,
            reply_to        bigint,
            body            text NOT NULL,
            mentions        text NOT NULL,
            PRIMARY KEY (conversation_id, seq, created_at)
        ) PARTITION BY RANGE (created_at)""")
    op.execute("CREATE INDEX messages_receipt ON messages (conversation_id, sender_id, client_msg_id)")
    op.execute("""
        CREATE TABLE changes (
            conversation_id bigint NOT NULL,
            version         bigint NOT NULL,
            occurred_at     timestamptz NOT NULL,
            sequence        bigint NOT NULL,
            type            varchar COLLATE "C" NOT NULL,
            actor_id        varchar COLLATE "C" NOT NULL,
            data            text NOT NULL,
            PRIMARY KEY (conversation_id, version, occurred_at)
        ) PARTITION BY RANGE (occurred_at)""")
    op.execute("""
        CREATE TABLE snapshots (
            aggregate_id varchar COLLATE "C" NOT NULL PRIMARY KEY,
            version      bigint NOT NULL,
            sequence     bigint NOT NULL,
            schema       integer NOT NULL,
            state        bytea NOT NULL
        )""")


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
