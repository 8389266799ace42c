"""The schema of the read models, as SQLAlchemy Core metadata. `migrations/postgres` makes it; a test holds them equal.

`messages` and `changes` are partitioned by month. A partition is made by the projection that first meets an event
of its month (`projections.months`), so a replay of any age of log works and nothing has to be made ahead of time.

JSON is kept as text: `changes.data` gives back the very bytes that were pushed, which `jsonb` would reorder, and
nothing is asked of the inside. Text that is compared or ordered collates as bytes.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()

_Id = BigInteger
_Name = String(collation="C")  # user ids, client ids, words of ours: bytes, not language
_Time = DateTime(timezone=True)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("projection", _Name, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("projection", "partition"),
)

# `version` and `updated_at` are those of the newest event that is not a message.
conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", _Id, nullable=False, autoincrement=False),
    Column("kind", _Name, nullable=False),
    Column("name", Text),
    Column("settings", Text, nullable=False),
    Column("created_by", _Name, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("member_count", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    PrimaryKeyConstraint("conversation_id"),
)

members = Table(
    "members",
    metadata,
    Column("conversation_id", _Id, nullable=False),
    Column("user_id", _Name, nullable=False),
    Column("role", _Name, nullable=False),
    Column("joined_seq", BigInteger, nullable=False),
    Column("joined_at", _Time, nullable=False),
    PrimaryKeyConstraint("conversation_id", "user_id"),
    Index("members_user_id", "user_id"),
)

heads = Table(
    "heads",
    metadata,
    Column("conversation_id", _Id, nullable=False, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("last_message_id", _Id),
    Column("last_sender_id", _Name),
    Column("last_message_at", _Time),
    Column("preview", Text),
    PrimaryKeyConstraint("conversation_id"),
)

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", _Id, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("sender_id", _Name, nullable=False),
    Column("client_msg_id", _Name, nullable=False),
    Column("reply_to", _Id),
    Column("body", Text, nullable=False),
    Column("mentions", Text, nullable=False),
    PrimaryKeyConstraint("conversation_id", "seq", "created_at"),
    Index("messages_receipt", "conversation_id", "sender_id", "client_msg_id"),
    postgresql_partition_by="RANGE (created_at)",
)

changes = Table(
    "changes",
    metadata,
    Column("conversation_id", _Id, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", _Name, nullable=False),
    Column("actor_id", _Name, nullable=False),
    Column("data", Text, nullable=False),
    PrimaryKeyConstraint("conversation_id", "version", "occurred_at"),
    postgresql_partition_by="RANGE (occurred_at)",
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("aggregate_id", _Name, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("schema", Integer, nullable=False),
    Column("state", LargeBinary, nullable=False),
    PrimaryKeyConstraint("aggregate_id"),
)
