"""The archive: every event of the log in ClickHouse, raw and as typed tables, exactly once.

`archiver` writes it and `reading` reads it; `clickhouse` is the database, `raw` and `typed` are its tables, `batches`
keeps a batch from being stored twice, `chain` shows that nothing was changed since.
"""
