-- The archive. Nothing was stored in the table of 0001, which is made anew in the order that reading needs.
--
-- A block is inserted under a deduplication token, so inserting it again changes nothing; it is on disk when the insert
-- returns. Events are cut into pieces of about a million (2^20) positions of a stream: within a piece they lie by
-- aggregate, so that a history is read at once and compresses well; replay reads piece after piece, each sorted as it
-- is read. The tables for analysts lie by month.
DROP TABLE IF EXISTS events;
CREATE TABLE events
(
    stream LowCardinality(String) COMMENT 'Stream of the log, one a partition: CONV-0, USER-0',
    sequence UInt64 COMMENT 'Position in the stream, rising, maybe with holes' CODEC(Delta, ZSTD(1)),
    subject String COMMENT 'Subject it is stored under: one an aggregate' CODEC(ZSTD(1)),
    type LowCardinality(String) COMMENT 'Event type: message.posted; empty where the event has none',
    version UInt64 COMMENT 'Number in its aggregate: 1, 2, 3, with no hole; 0 where the event has none' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it was decided; when it was stored where the event does not say' CODEC(Delta, ZSTD(1)),
    actor String COMMENT 'User who caused it; empty where the event does not say' CODEC(ZSTD(1)),
    stored_at DateTime64(6, 'UTC') COMMENT 'When the log stored it' CODEC(Delta, ZSTD(1)),
    headers Map(String, String) COMMENT 'Its headers, but for those that type, version, occurred_at and actor say' CODEC(ZSTD(1)),
    data String COMMENT 'Its body, byte for byte: MessagePack' CODEC(ZSTD(3)),
    digest UInt64 COMMENT 'Begin of a BLAKE2b digest of position, subject, headers and body' CODEC(NONE)
)
ENGINE = MergeTree
PARTITION BY (stream, intDiv(sequence, 1048576))
ORDER BY (subject, version, sequence)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Every event of the log as it was stored: what the log continues in, backwards';

CREATE TABLE archive_batches
(
    stream LowCardinality(String) COMMENT 'Stream of the log',
    first_sequence UInt64 COMMENT 'Position of its first event',
    last_sequence UInt64 COMMENT 'Position of its last event: up to here the stream is archived',
    events UInt32 COMMENT 'How many events it has',
    undecodable UInt32 COMMENT 'How many of them are in no typed table, because they could not be decoded',
    chain String COMMENT 'Hash chain over the stream at its last event: 64 hexadecimal digits',
    archived_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When all of it was in the archive'
)
ENGINE = MergeTree
ORDER BY (stream, last_sequence)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Batches that are archived whole, one row each';

CREATE TABLE messages
(
    conversation_id UInt64 COMMENT 'Conversation it was posted in' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Number among the messages of the conversation: 1, 2, 3, with no hole' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the conversation' CODEC(Delta, ZSTD(1)),
    message_id UInt64 COMMENT 'Id, unique everywhere' CODEC(Delta, ZSTD(1)),
    sender_id String COMMENT 'User who posted it' CODEC(ZSTD(1)),
    client_msg_id String COMMENT 'Id the client gave it, unique for the sender in the conversation' CODEC(ZSTD(1)),
    created_at DateTime64(3, 'UTC') COMMENT 'When it was posted' CODEC(Delta, ZSTD(1)),
    text String COMMENT 'Text of a text message' CODEC(ZSTD(3)),
    body String COMMENT 'Body as JSON where it is more than a text; empty where it is {"type":"text","text":text}' CODEC(ZSTD(3)),
    reply_to UInt64 COMMENT 'Message it answers; 0 when none' CODEC(ZSTD(1)),
    mentions Array(String) COMMENT 'Users it mentions' CODEC(ZSTD(1)),
    stream LowCardinality(String) COMMENT 'Stream of its event',
    sequence UInt64 COMMENT 'Position of its event' CODEC(Delta, ZSTD(1)),
    INDEX words text TYPE text(tokenizer = 'splitByNonAlpha', preprocessor = lower(text)),
    INDEX receipts client_msg_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created_at)
ORDER BY (conversation_id, seq)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Messages, one row each';

CREATE TABLE conversations
(
    conversation_id UInt64 COMMENT 'The conversation' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the conversation' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    change LowCardinality(String) COMMENT 'created, or updated',
    actor_id String COMMENT 'User who did it' CODEC(ZSTD(1)),
    kind LowCardinality(String) COMMENT 'direct, group or channel; empty in an update, which does not change it',
    name String COMMENT 'Its name from then on; empty when it has none' CODEC(ZSTD(1)),
    settings String COMMENT 'Its settings from then on, as JSON' CODEC(ZSTD(1)),
    members UInt32 COMMENT 'Members it was created with; 0 in an update',
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (conversation_id, version)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Conversations created and changed, one row a change';

CREATE TABLE memberships
(
    conversation_id UInt64 COMMENT 'The conversation' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the conversation' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    user_id String COMMENT 'Whose membership' CODEC(ZSTD(1)),
    change LowCardinality(String) COMMENT 'joined, left, or role',
    role LowCardinality(String) COMMENT 'Role from then on; empty after leaving',
    joined_seq UInt64 COMMENT 'Of who joined: the first message that counts as unread; else 0' CODEC(ZSTD(1)),
    actor_id String COMMENT 'User who did it' CODEC(ZSTD(1)),
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (conversation_id, version, user_id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Who came, went or changed role, one row a user and change; the first members of a conversation too';

CREATE TABLE reads
(
    user_id String COMMENT 'Who has read' CODEC(ZSTD(1)),
    conversation_id UInt64 COMMENT 'In which conversation' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Up to which message' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When the marker was moved' CODEC(Delta, ZSTD(1)),
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, conversation_id, seq)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Read markers moved, one row a move; posting reads without one';

CREATE TABLE own_settings
(
    user_id String COMMENT 'Whose settings' CODEC(ZSTD(1)),
    conversation_id UInt64 COMMENT 'Of which conversation' CODEC(ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    muted_until Nullable(DateTime64(3, 'UTC')) COMMENT 'Muted until then; NULL when not',
    pinned Bool COMMENT 'Whether it is pinned from then on',
    hidden Bool COMMENT 'Whether it is hidden from then on',
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, conversation_id, sequence)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Settings that users made for themselves of conversations, one row a change';

CREATE TABLE profiles
(
    user_id String COMMENT 'Whose profile' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the user' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    display_name String COMMENT 'Name from then on; empty when none' CODEC(ZSTD(1)),
    avatar_url String COMMENT 'Picture from then on; empty when none' CODEC(ZSTD(1)),
    attributes Map(String, String) COMMENT 'What else the host application keeps' CODEC(ZSTD(1)),
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, version)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Profiles, one row a change';

CREATE TABLE devices
(
    user_id String COMMENT 'Whose device' CODEC(ZSTD(1)),
    device_id String COMMENT 'Which' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the user' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    change LowCardinality(String) COMMENT 'registered, or revoked',
    kind LowCardinality(String) COMMENT 'Kind of device; empty when revoked',
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, device_id, version)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Devices registered and revoked, one row a change';

CREATE TABLE blocks
(
    user_id String COMMENT 'Who blocks' CODEC(ZSTD(1)),
    blocked_id String COMMENT 'Whom' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Number among the events of the user' CODEC(Delta, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta, ZSTD(1)),
    blocked Bool COMMENT 'Whether from then on, or not any more',
    stream LowCardinality(String) COMMENT 'Stream of the event',
    sequence UInt64 COMMENT 'Position of the event' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, blocked_id, version)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Users who take no direct messages of others, one row a change';
