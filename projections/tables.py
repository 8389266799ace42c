"""The schema of the read models, as SQLAlchemy Core metadata. `migrations/postgres` makes it; a test holds them equal.

`messages` and `changes` are partitioned by month. A partition is made by the projection that first meets an event
of its month (`projections.months`), so a replay of any age of log works and nothing has to be made ahead of time.

JSON is kept as text: `changes.data` gives back the very bytes that were pushed, which `jsonb` would reorder, and
nothing is asked of the inside. Text that is compared or ordered collates as bytes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

# `version` is that of the projection which made the rows (`Projection.version`).
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("projection", _Name, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
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

# `joined_version` and `joined_sequence` are those of the event that made them a member; `posted_seq` is their own
# newest message since, 0 without one.
members = Table(
    "members",
    metadata,
    Column("conversation_id", _Id, nullable=False),
    Column("user_id", _Name, nullable=False),
    Column("role", _Name, nullable=False),
    Column("joined_seq", BigInteger, nullable=False),
    Column("joined_at", _Time, nullable=False),
    Column("joined_version", BigInteger, nullable=False),
    Column("joined_sequence", BigInteger, nullable=False),
    Column("posted_seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("conversation_id", "user_id"),
    Index("members_user_id", "user_id", "joined_sequence"),
)

# The newest time a user was removed from a conversation, kept when they are put in again: what a device that was away
# is told, and up to which version.
departures = Table(
    "departures",
    metadata,
    Column("user_id", _Name, nullable=False),
    Column("conversation_id", _Id, nullable=False),
    Column("joined_version", BigInteger, nullable=False),
    Column("left_version", BigInteger, nullable=False),
    Column("left_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "conversation_id"),
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

# -- users: `sequence` is that of the event that last changed the row, in the user's own partition ---------------

# `version` is of the user's newest event of any kind; without a profile the other columns are empty.
users = Table(
    "users",
    metadata,
    Column("user_id", _Name, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("display_name", Text),
    Column("avatar_url", Text),
    Column("attributes", Text, nullable=False),
    Column("profile_at", _Time),
    Column("profile_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id"),
)

# `revoked_at` is the newest time; it stays when a newer token registers the device anew.
devices = Table(
    "devices",
    metadata,
    Column("user_id", _Name, nullable=False),
    Column("device_id", _Name, nullable=False),
    Column("kind", _Name, nullable=False),
    Column("registered_at", _Time, nullable=False),
    Column("revoked_at", _Time),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "device_id"),
)

# One that was taken back stays, so that a device that was away is told.
blocks = Table(
    "blocks",
    metadata,
    Column("user_id", _Name, nullable=False),
    Column("blocked_id", _Name, nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("changed_at", _Time, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "blocked_id"),
)

# Read markers, as they were moved; who posted has read their own message without one (`members.posted_seq`).
markers = Table(
    "markers",
    metadata,
    Column("conversation_id", _Id, nullable=False),
    Column("user_id", _Name, nullable=False),
    Column("read_seq", BigInteger, nullable=False),
    Column("read_at", _Time, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("conversation_id", "user_id"),
    Index("markers_user_id", "user_id", "sequence"),
)

own_settings = Table(
    "own_settings",
    metadata,
    Column("user_id", _Name, nullable=False),
    Column("conversation_id", _Id, nullable=False),
    Column("muted_until", _Time),
    Column("pinned", Boolean, nullable=False),
    Column("hidden", Boolean, nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "conversation_id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("family", _Name, nullable=False),
    Column("aggregate_id", _Name, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("schema", Integer, nullable=False),
    Column("state", LargeBinary, nullable=False),
    PrimaryKeyConstraint("family", "aggregate_id"),
)

# What has left the warm tier, a row each time rows of a month did: written by whoever moves them (`projections.tiers`),
# in the very transaction. `kept_rows` stayed; sizes are those of the month's partition, indexes included.
tier_moves = Table(
    "tier_moves",
    metadata,
    Column("model", _Name, nullable=False),
    Column("month_start", _Time, nullable=False),
    Column("month_end", _Time, nullable=False),
    Column("moved_at", _Time, nullable=False),
    Column("moved_rows", BigInteger, nullable=False),
    Column("kept_rows", BigInteger, nullable=False),
    Column("conversations", BigInteger, nullable=False),
    Column("freed_bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "month_start", "moved_at"),
)
