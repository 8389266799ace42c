-- Every event of the log, as it was stored: the source of cold history, and of replay behind the log's own reach.
-- A block of the log is inserted under one deduplication token (its stream and sequences), so that inserting it
-- again changes nothing while the token is within the window.
CREATE TABLE IF NOT EXISTS events
(
    stream LowCardinality(String) COMMENT 'JetStream stream, one a partition: CONV-0',
    sequence UInt64 COMMENT 'Position in the stream, rising, maybe with holes' CODEC(Delta, ZSTD(1)),
    subject String COMMENT 'Subject it is stored under: one an aggregate' CODEC(ZSTD(1)),
    type LowCardinality(String) COMMENT 'Event type: message.posted',
    version UInt64 COMMENT 'Number in its aggregate: 1, 2, 3, with no hole' CODEC(T64, ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it was decided' CODEC(DoubleDelta, ZSTD(1)),
    actor String COMMENT 'User who caused it' CODEC(ZSTD(1)),
    headers Map(String, String) COMMENT 'All headers of the stored event, as they are' CODEC(ZSTD(1)),
    data String COMMENT 'Body of the stored event: MessagePack' CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (subject, version)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'The archive of the log: raw events';
